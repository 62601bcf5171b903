"""Around every request: its id, bounds on its body, a log line, and an answer to whatever goes wrong.

Two layers, because what is answered to a page of another origin has to pass CORS' middleware on its way, which stands
between them: `RequestContext` outside, `Problems` inside.
"""

import asyncio
import logging
import re
import time
import uuid
from abc import ABC, abstractmethod
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders, State
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import observability
from .bodies import is_lines
from .problems import ProblemError, of_exception

_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_BYTES_PER_S = 32 * 1024  # what a body must bring on average, its grace aside
_LOOK_EVERY_S = 0.5
_LINGER_S = 1.0
LARGEST_HEADERS = 32 * 1024


class _OnRequests(ABC):
    """ASGI middleware for requests; whatever else comes, as the application's start, passes it by."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application on one request."""
        if scope["type"] == "http":
            await self._handle(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    @abstractmethod
    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class RequestContext(_OnRequests):
    """ASGI middleware. An answer always carries `X-Request-ID`; while draining, it also closes its connection."""

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["request_id"] = _request_id(Headers(scope=scope))
        exchange = scope["exchange"] = _Exchange(scope, receive, send, self._state)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            exchange.finish()


class Problems(_OnRequests):
    """ASGI middleware that answers whatever goes wrong, within a `RequestContext`."""

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope["exchange"]
        try:
            exchange.check_headers()
            await self._app(scope, receive, send)
        except ClientDisconnect:
            pass  # nobody is there to be answered
        except Exception as error:
            problem = of_exception(error)
            if problem.code == "internal":
                observability.log(
                    "unexpected", logging.ERROR, exc_info=error, request_id=scope["request_id"], path=scope["path"]
                )
            self._state.metrics.rejected(problem.code)
            if exchange.status is None:
                await problem.response(scope["request_id"], path=scope["path"])(scope, receive, send)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, state: State) -> None:
        self._scope, self._receive, self._send, self._state = scope, receive, send, state
        self._settings = state.settings
        self._headers = Headers(scope=scope)
        self._stream = is_lines(self._headers)
        self._start, self._waited_s, self._received = time.perf_counter(), 0.0, 0
        self._body_is_here, self._held = False, 0
        self.status: int | None = None
        self._sent = 0

    def check_headers(self) -> None:
        """Raise `ProblemError` if they are too long, or declare a body that is: before any of it is read."""
        length = sum(len(name) + len(value) for name, value in self._scope["headers"])
        if length > LARGEST_HEADERS:
            raise ProblemError("malformed_request", f"headers of at most {LARGEST_HEADERS} bytes", str(length))
        coding = self._headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("", "identity"):
            raise ProblemError(
                "unsupported_encoding",
                "a body without Content-Encoding",
                coding[:40],
                "Send it as it is: photos are packed.",
            )
        declared = self._headers.get("content-length", "")
        if declared.isdigit() and not self._stream:
            self._check_length(int(declared))

    async def receive(self) -> Message:
        """Receive from the client, within the bounds."""
        if self._body_is_here:  # what comes now is the client's leaving
            return await self._receive()
        message = await self._message()
        length = len(message.get("body", b""))
        self._received += length
        self._body_is_here = not message.get("more_body", False)
        if self._stream:  # each piece of a stream has its own patience, and each line its own bound
            self._waited_s = self._received = 0
        else:
            self._check_length(self._received)
            self._state.bodies.take(length)
            self._held += length
        return message

    async def _message(self) -> Message:
        """Return the client's next message; raises `ProblemError` when patience ends.

        Waits a little at a time and counts that, not what the clock says: while the process or the whole machine
        stands still, as a virtual one that moves, nobody is slow.
        """
        coming = asyncio.ensure_future(self._receive())
        try:
            while (left_s := self._patience_s()) > 0:
                start, at_most_s = time.perf_counter(), min(left_s, _LOOK_EVERY_S)
                await asyncio.wait({coming}, timeout=at_most_s)
                self._waited_s += min(time.perf_counter() - start, at_most_s)
                if coming.done():
                    return coming.result()
        finally:
            coming.cancel()
        raise ProblemError(
            "slow_body", f"{_BYTES_PER_S // 1024} KiB a second", f"{self._received} bytes so far", "Send it anew."
        )

    async def send(self, message: Message) -> None:
        """Send to the client, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._scope["request_id"]
            # Of a stream the rest is read: a client that is told that the connection closes may send it elsewhere.
            is_read = self._stream and self.status < HTTPStatus.BAD_REQUEST
            if self._state.draining or (self._body_is_coming() and not is_read):
                headers["Connection"] = "close"
        self._sent += len(message.get("body", b""))
        if message["type"] == "http.response.body" and not message.get("more_body") and self._body_is_coming():
            await self._send({**message, "more_body": True})
            await self._discard()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    def finish(self) -> None:
        """Count and log."""
        self._state.bodies.give(self._held)
        seconds = time.perf_counter() - self._start
        route = self._route()
        self._state.metrics.answered(route, self._scope["method"], self.status or 499, seconds)
        observability.log(
            "request",
            logging.DEBUG if route in ("/healthz", "/readyz", "/metrics") else logging.INFO,
            request_id=self._scope["request_id"],
            method=self._scope["method"],
            route=route,
            status=self.status or 499,  # the client left before the answer
            ms=round(seconds * 1000, 1),
            received=self._received,
            sent=self._sent,
            client=self._scope["client"][0] if self._scope.get("client") else "",
        )

    def _route(self) -> str:
        """Return the declared path of what was asked for; if it was refused by its headers, what it would have been."""
        asked = (route for route in self._state.routes if route.matches(self._scope)[0] is not Match.NONE)
        return getattr(self._scope.get("route") or next(asked, None), "path", "none")

    def _body_is_coming(self) -> bool:
        """Whether a body was announced and not read to its end: who is refused may go on sending forever."""
        announced = self._headers.get("content-length", "0") != "0" or "transfer-encoding" in self._headers
        return announced and not self._body_is_here

    async def _discard(self) -> None:
        """Read what a refused client still sends: closing at once would lose the answer."""
        try:
            async with asyncio.timeout(_LINGER_S):
                while (await self._receive()).get("more_body"):
                    pass
        except TimeoutError:
            pass

    def _patience_s(self) -> float:
        return self._settings.body_grace_s + self._received / _BYTES_PER_S - self._waited_s

    def _check_length(self, length: int) -> None:
        if length > self._settings.max_body_bytes:
            raise ProblemError(
                "body_too_large",
                f"at most {self._settings.max_body_bytes} bytes",
                f"{length} or more",
                "Scale the image down.",
            )


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _SAFE_ID.fullmatch(given) else uuid.uuid4().hex
