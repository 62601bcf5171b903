"""From a worker's `Done` to an HTTP response, and no further than the client waits for it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from .negotiation import EXTENSIONS, JSON

if TYPE_CHECKING:
    from .worker import Done

_Result = TypeVar("_Result")
BOX_HEADER, CONFIDENCE_HEADER = "X-Subject-Box", "X-Matte-Confidence"


class SubjectBox(BaseModel):
    """Where the subject is in the upright photo, in pixels."""

    left: int
    top: int
    width: int
    height: int


class MatteDocument(BaseModel):
    """An output as JSON."""

    image: str
    """base64"""
    media_type: str
    width: int
    height: int
    model: str
    engine: str
    confidence: float = Field(ge=0, le=1)
    """The overlap with the true matte that this one lets expect, from 0 (nothing was taken) to 1"""
    timings_ms: dict[str, float]
    box: SubjectBox | None = None
    """Of what is cropped or placed"""


def document(done: Done) -> dict[str, Any]:
    """Return the members of a `MatteDocument`."""
    return {
        "image": base64.b64encode(done.content).decode(),
        "media_type": done.media_type,
        "width": done.width,
        "height": done.height,
        "model": done.model,
        "engine": done.engine,
        "confidence": done.confidence,
        "timings_ms": {phase: round(ms, 2) for phase, ms in done.phases_ms.items()},
        **({"box": done.box._asdict()} if done.box else {}),
    }


def answer(done: Done, media_type: str) -> Response:
    """Return the response for an output, as the image itself or as JSON."""
    headers = {
        "Server-Timing": ", ".join(f"{phase};dur={ms:.1f}" for phase, ms in done.phases_ms.items()),
        "Vary": "Accept",
        "Cache-Control": "no-store",
        CONFIDENCE_HEADER: f"{done.confidence:.3f}",
    }
    if done.box:
        headers[BOX_HEADER] = ",".join(map(str, done.box))
    if media_type == JSON:
        return JSONResponse(document(done), headers=headers)
    headers["Content-Disposition"] = f'inline; filename="matte{EXTENSIONS[media_type]}"'
    return Response(done.content, media_type=media_type, headers=headers)


async def unless_disconnected(request: Request, work: Awaitable[_Result]) -> _Result:
    """Return the result of an awaitable; if the client leaves first, cancel it and raise `ClientDisconnect`.

    The request's body has to have been read.
    """
    task, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_disconnection(request))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        leaving.cancel()


async def _disconnection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
