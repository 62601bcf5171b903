"""Every error that the service gives, as RFC 9457 problem documents with a stable `code`."""

import logging
import re
import reprlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from keras_matting.errors import LackingError, MattingError

from . import observability

MEDIA_TYPE = "application/problem+json"


class Kind(NamedTuple):
    """What a code means."""

    status: int
    title: str


CODES = {
    "malformed_request": Kind(400, "The request cannot be parsed"),
    "unauthorized": Kind(401, "An API key is needed"),
    "not_found": Kind(404, "There is nothing at this address"),
    "unknown_model": Kind(404, "No such model is served"),
    "method_not_allowed": Kind(405, "This address does not take this method"),
    "not_acceptable": Kind(406, "The answer cannot be given in an accepted format"),
    "slow_body": Kind(408, "The body arrives too slowly"),
    "body_too_large": Kind(413, "The body is too large"),
    "image_too_large": Kind(413, "The image has too many pixels"),
    "too_many_items": Kind(413, "The batch has too many items"),
    "unsupported_encoding": Kind(415, "The body is packed in a way that is not taken"),
    "unsupported_format": Kind(415, "Not an image format that is taken"),
    "undecodable_image": Kind(422, "The image cannot be decoded"),
    "invalid_parameter": Kind(422, "A parameter is missing or not valid"),
    "not_offered": Kind(422, "This service does not offer what was asked for"),
    "no_subject": Kind(422, "There is no subject in the photo"),
    "refused_url": Kind(422, "The photo's address is refused"),
    "rate_limited": Kind(429, "Too many requests from this client"),
    "internal": Kind(500, "The service failed"),
    "inference_failed": Kind(500, "The model gave no usable matte for this photo"),
    "overloaded": Kind(503, "More requests than can be served are waiting"),
    "not_ready": Kind(503, "The service is getting ready, or is shutting down"),
    "model_loading": Kind(503, "The model is being got ready"),
    "model_unavailable": Kind(503, "The model could not be got ready"),
    "engine_failed": Kind(503, "The engine failed and is being opened again"),
    "deadline_exceeded": Kind(504, "The answer was not ready in time"),
}
# What any request that a model computes may be answered, and what one with a photo, too.
INFERENCE_PROBLEMS = (
    "malformed_request",
    "unauthorized",
    "unknown_model",
    "slow_body",
    "body_too_large",
    "unsupported_encoding",
    "invalid_parameter",
    "rate_limited",
    "internal",
    "inference_failed",
    "overloaded",
    "not_ready",
    "model_loading",
    "model_unavailable",
    "engine_failed",
    "deadline_exceeded",
)
PHOTO_PROBLEMS = (*INFERENCE_PROBLEMS, "image_too_large", "not_offered", "unsupported_format", "undecodable_image")
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""  # what a client wrote, whole: it may hold the end of a sentence
_SENTENCE = re.compile(rf"Expected (.+?); received ({_QUOTED}|.+?)\.(?: (.*))?", re.DOTALL)  # of the library's errors
_LONGEST = 80
_SHORT = reprlib.Repr()  # what came may be a whole body
_SHORT.maxstring = _SHORT.maxother = _LONGEST
_CODE_OF_STATUS = {400: "malformed_request", 404: "not_found", 405: "method_not_allowed"}


class ProblemError(Exception):
    """An error to answer with; `expected`, `received` and `remedy` make its sentence. Survives pickling.

    `retry_after_s`: whole seconds after which a repetition has a chance, for 429 and 503.
    """

    def __init__(
        self, code: str, expected: str, received: str, remedy: str = "", retry_after_s: int | None = None
    ) -> None:
        super().__init__(code, expected, received, remedy, retry_after_s)
        self.code, self.expected, self.received, self.remedy = code, expected, received, remedy
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        """The HTTP status of its code."""
        return CODES[self.code].status

    @property
    def detail(self) -> str:
        """One sentence for people."""
        return f"Expected {self.expected}; received {self.received}." + (f" {self.remedy}" if self.remedy else "")

    def document(self, request_id: str = "") -> dict[str, Any]:
        """Return the problem document's members."""
        return {
            "type": f"urn:keras-matting:problem:{self.code}",
            "title": CODES[self.code].title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
            "expected": self.expected,
            "received": self.received,
            "remedy": self.remedy,
        }

    def response(self, request_id: str = "", headers: Mapping[str, str] | None = None, path: str = "") -> JSONResponse:
        """Return the response to send; below `/v2` with the member that clients of that protocol look for."""
        headers, content = dict(headers or {}), self.document(request_id)
        if path.startswith("/v2"):
            content["error"] = self.detail
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(content, self.status, headers, media_type=MEDIA_TYPE)


class ProblemDocument(BaseModel):
    """RFC 9457: what every error looks like."""

    model_config = ConfigDict(extra="forbid")
    type: str
    title: str
    status: int
    detail: str = Field(description="One sentence: what was expected, what came, the remedy")
    code: str = Field(description="Stable; for programs", json_schema_extra={"enum": [*sorted(CODES)]})
    request_id: str
    expected: str
    received: str
    remedy: str
    error: str | None = Field(None, description="Below /v2: the detail, as the Open Inference Protocol calls it")
    items: list[Any] | None = Field(None, description="Of a batch that failed as a whole: the result of each item")


def responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI `responses` that document these codes, with an example each."""
    documented: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        example = ProblemError(code, "...", "...").document("0f8fad5bd9cb469fa16570867728950e")
        status = CODES[code].status
        entry = documented.setdefault(
            status, {"model": ProblemDocument, "description": "", "content": {MEDIA_TYPE: {"examples": {}}}}
        )
        entry["description"] = "; ".join(filter(None, (entry["description"], f"{code}: {CODES[code].title}")))
        entry["content"][MEDIA_TYPE]["examples"][code] = {"value": example}
        if status in (429, 503):
            entry["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds"}}
    return documented


def of_validation(errors: Sequence[Any]) -> ProblemError:
    """Return the `ProblemError` of Pydantic's errors: the first of them, named by its place."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("query", "body", "path", "header")) or "body"
    received = _SHORT.repr(first.get("input"))[:_LONGEST]
    return ProblemError(
        "invalid_parameter", f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}", received, "See /openapi.json."
    )


def of_sentence(code: str, error: MattingError) -> ProblemError:
    """Return the `ProblemError` that says what the library says."""
    match = _SENTENCE.fullmatch(str(error))
    if match:
        return ProblemError(code, match[1], match[2], match[3] or "")
    return ProblemError(code, "what this service can do", "something else", str(error))


def of_lacking(error: LackingError) -> ProblemError:
    """Return the `ProblemError` for a client, who can install nothing here; the log has what whoever runs it can do."""
    observability.log(str(error), logging.WARNING)
    return ProblemError(
        "not_offered",
        "an output that this service can make",
        "refine or foreground, which it cannot",
        "Leave them out (at /api/remove a, vm and dc), or ask whoever runs the service: its log says what it lacks.",
    )


def of_exception(error: Exception) -> ProblemError:
    """Return the `ProblemError` that answers any exception."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, (RequestValidationError, ValidationError)):
        return of_validation(error.errors())
    if isinstance(error, HTTPException) and error.status_code in _CODE_OF_STATUS:
        code = _CODE_OF_STATUS[error.status_code]
        return ProblemError(code, "a request as /openapi.json describes it", str(error.detail))
    return ProblemError("internal", "an answer", "a defect of the service", "Report the request_id.")


def _nearest(request: Request) -> str:
    """Name the address that is asked for but for its slashes and capitals: a redirection would lose the photo."""
    path = "/" + "/".join(filter(None, request.scope["path"].split("/")))
    for candidate in dict.fromkeys((path, path.lower())):
        scope = {**request.scope, "path": candidate}
        if candidate != request.scope["path"] and any(
            route.matches(scope)[0] is not Match.NONE for route in request.app.routes
        ):
            return f"Use {candidate}."
    return ""


async def handle(request: Request, error: Exception) -> JSONResponse:
    """Answer an exception; for FastAPI's `exception_handlers`."""
    headers = getattr(error, "headers", None)  # 405 says what is allowed
    problem = of_exception(error)
    if problem.code == "not_found":
        problem = ProblemError("not_found", "an address of /openapi.json", request.url.path[:200], _nearest(request))
    request.app.state.metrics.rejected(problem.code)
    return problem.response(request.scope.get("request_id", ""), headers, request.url.path)


HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    ProblemError: handle,
    RequestValidationError: handle,
    ValidationError: handle,
    HTTPException: handle,
}
