"""`POST /v1/batch`: many photos, as one JSON document or as a stream of JSON lines."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, nullcontext
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.types import Receive, Scope, Send

from keras_matting.photos import base64_text

from .. import negotiation, problems
from ..admission import admit
from ..answers import SubjectBox, document, unless_disconnected
from ..bodies import in_parser, is_lines, json_of
from ..budget import Share
from ..lines import lines_of
from ..negotiation import JSON, NDJSON
from ..openapi import json_body
from ..parameters import MatteParameters, check_repeated
from ..problems import ProblemError
from ..worker import Job

router = APIRouter(tags=["matting"], dependencies=[Depends(check_repeated)])
# Results as they are ready, each with the bytes that it holds of the budget; None at the end
_Results: TypeAlias = asyncio.Queue[tuple[dict[str, Any], int] | None]
_STREAMED_AT_ONCE = 8  # so many photos of a stream are inside at a time
_PARTS = 8  # lists and values of an item, generously
_EXAMPLE_ID = "7d444840-9dc0-11d1-b245-5ffdce74fad2"


async def admit_stream(request: Request) -> AsyncIterator[None]:
    """Count a stream in until it is answered: there are fewer places for them than for other requests."""
    with request.app.state.streams if _is_stream(request) else nullcontext():
        yield


def _is_stream(request: Request) -> bool:
    return is_lines(request.headers)


class Item(BaseModel):
    """A photo with the name that its result will carry."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"id": _EXAMPLE_ID, "image": "iVBORw0K..."}}
    )
    id: Annotated[str, Field(min_length=1, max_length=128, description="A UUID, say")]
    image: Annotated[str, Field(description="base64 of a JPEG, PNG or WebP file")]


class BatchRequest(BaseModel):
    """Photos whose ids are all different."""

    model_config = ConfigDict(extra="forbid")
    items: Annotated[list[Item], Field(min_length=1)]


class ItemResult(BaseModel):
    """The output of one photo, or the problem with it (`status` of 400 or more)."""

    id: str | None
    status: int
    image: str | None = None
    media_type: str | None = None
    width: int | None = None
    height: int | None = None
    model: str | None = None
    engine: str | None = None
    timings_ms: dict[str, float] | None = None
    box: SubjectBox | None = None
    confidence: Annotated[float | None, Field(ge=0, le=1)] = None
    problem: problems.ProblemDocument | None = None


class BatchResponse(BaseModel):
    """The results in the order of the request."""

    items: list[ItemResult]


@router.post(
    "/v1/batch",
    summary="Matte many photos",
    dependencies=[Depends(admit), Depends(admit_stream)],
    responses={
        200: {
            "model": BatchResponse,
            "description": "The results; as JSON lines if the request was JSON lines",
            "content": {NDJSON: {"schema": {"type": "string"}}},
        },
        **problems.responses("not_acceptable", "too_many_items", "no_subject", *problems.PHOTO_PROBLEMS),
    },
    openapi_extra=json_body(BatchRequest, other=(NDJSON,)),
)
async def batch(request: Request, query: Annotated[MatteParameters, Query()]) -> Response:
    """One bad photo fails alone, in its own result; if all fail, the answer is the first one's problem.

    As `application/x-ndjson` there is no limit to the number of photos: send `{"id": ..., "image": ...}` on each line,
    and read while you send: results come as they are ready, in any order. A result's image is as `/v1/matte` gives it.
    """
    is_stream = _is_stream(request)
    negotiation.choose(request, (NDJSON if is_stream else JSON,))
    work = _Work(request, query)
    if is_stream:
        return _Stream(work.stream())
    items = await in_parser(_parse, await request.body(), request.app.state.settings.max_items)
    with request.app.state.admission.photos(len(items)):
        results = await unless_disconnected(request, work.all(items))
    failed = [result["problem"] for result in results if "problem" in result]
    if len(failed) == len(results):
        return JSONResponse({**failed[0], "items": results}, failed[0]["status"], media_type=problems.MEDIA_TYPE)
    return JSONResponse({"items": results}, headers={"Cache-Control": "no-store"})


class _Stream(Response):
    """Sends text as it comes. Starlette's own would swallow the request's body, waiting for the client to leave."""

    media_type = NDJSON

    def __init__(self, content: AsyncGenerator[str, None]) -> None:
        super().__init__(headers={"Cache-Control": "no-store"})
        self._content = content
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._content) as texts:
            async for text in texts:
                await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _parse(body: bytes, max_items: int) -> list[Item]:
    """Return the `Item`s of a JSON body; raises `ProblemError` or Pydantic's `ValidationError`."""
    content = json_of(body, lists=_PARTS * max_items, values=_PARTS * max_items)
    if isinstance(content, dict) and isinstance(content.get("items"), list) and len(content["items"]) > max_items:
        raise ProblemError(
            "too_many_items", f"at most {max_items} items", str(len(content["items"])), f"Send less, or send {NDJSON}."
        )
    items = BatchRequest.model_validate(content).items
    ids = [item.id for item in items]
    if repeated := next((name for index, name in enumerate(ids) if name in ids[:index]), None):
        raise ProblemError("invalid_parameter", "each id once", f"{repeated!r} twice")
    return items


class _Work:
    """The items of one request."""

    def __init__(self, request: Request, query: MatteParameters) -> None:
        self._request, self._worker = request, request.app.state.worker
        self._request_id = request.scope["request_id"]
        self._model, self._options = query.model, query.options()
        self._media_type = negotiation.formats_of(query.kind)[0]
        self._max_line = request.app.state.settings.max_body_bytes * 4 // 3 + 1024

    async def all(self, items: Sequence[Item]) -> list[dict[str, Any]]:
        """Return the results of items, in their order."""

        async def result(item: Item) -> dict[str, Any]:
            try:
                job = await in_parser(self._job, item)
            except ProblemError as problem:
                return self._failure(item.id, problem)
            return await self._result(item.id, job)

        return await asyncio.gather(*map(result, items))

    async def stream(self) -> AsyncGenerator[str, None]:
        """Yield the results of the lines of the request's body, as they are ready."""
        results: _Results = asyncio.Queue()
        places = asyncio.Semaphore(_STREAMED_AT_ONCE)
        async with self._request.app.state.stream_bytes.share() as share:
            reading = asyncio.create_task(self._read(results, places, share))
            try:
                while (finished := await results.get()) is not None:
                    result, held = finished
                    yield json.dumps(result) + "\n"
                    places.release()  # only now: who does not take results gets no more computed
                    await share.give(held)
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, results: _Results, places: asyncio.Semaphore, share: Share) -> None:
        """Start the work on each line; put None when all is done."""

        async def work(number: int, line: bytes, held: int) -> None:
            parsed = await in_parser(self._parsed, number, line)
            del line  # of which the photo is a copy
            result = parsed if isinstance(parsed, dict) else await self._result(*parsed)
            await results.put((result, held))

        tasks: set[asyncio.Task[None]] = set()
        number = 0
        try:
            async for line in lines_of(self._request.stream(), self._max_line):
                if self._request.app.state.draining:
                    raise ProblemError(
                        "not_ready", "a service that stays", "one that ends", "Send what is left anew.", 1
                    )
                number += 1
                await places.acquire()
                held = await share.take(len(line))
                task = asyncio.create_task(work(number, line, held))
                del line  # the task has it
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        except ProblemError as problem:  # a line without end, or a silent client: what came before is still done
            results.put_nowait((self._failure(None, problem), 0))
        finally:
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                results.put_nowait(None)

    def _parsed(self, number: int, line: bytes) -> dict[str, Any] | tuple[str, Job]:
        """Return (id, `Job`) of a line, or the result that tells what is wrong with it."""
        name = None
        try:
            content = json_of(line, "a JSON document on each line")
            if isinstance(content, dict) and isinstance(content.get("id"), str):
                name = content["id"][:128]  # of an item that is wrong otherwise
            item = Item.model_validate(content)
            job = self._job(item)
        except ProblemError as problem:
            return self._failure(name, problem, **({"line": number} if problem.code == "malformed_request" else {}))
        except ValidationError as error:
            return self._failure(name, problems.of_validation(error.errors()), line=number)
        return item.id, job

    async def _result(self, name: str, job: Job) -> dict[str, Any]:
        try:
            done = await self._worker.matte(job)
        except Exception as error:  # its own; the others go on
            return self._failure(name, problems.of_exception(error))
        return {"id": name, "status": 200, **document(done)}

    def _job(self, item: Item) -> Job:
        return Job(_decoded(item.image), self._options, self._media_type, self._model)

    def _failure(self, name: str | None, problem: ProblemError, **more: Any) -> dict[str, Any]:
        return {"id": name, "status": problem.status, **more, "problem": problem.document(self._request_id)}


def _decoded(text: str) -> bytes:
    try:
        return base64_text.decode(text)
    except base64_text.NotBase64Error as error:
        raise ProblemError(
            "invalid_parameter", "image: base64", str(error), "Encode the file's bytes, no text."
        ) from None
