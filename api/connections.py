"""One client's connection: how long it may say nothing, or take nothing, and errors of framing as problems."""

import asyncio
import json
import re
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from .problems import MEDIA_TYPE, ProblemError

_LOOK_EVERY_S = 1.0
_ORIGIN = re.compile(rb"\r\norigin:[ \t]*([!-~]+)[ \t]*\r\n", re.IGNORECASE)


@dataclass
class Patience:
    """How long connections wait for their clients; all of a service share it, so that its end can shorten it.

    `header_s`: from the connection, or from an answer, to the next request's last header, also where what was answered
    early still goes on. `answer_s`: how long nothing of an answer has to be taken for the connection to be cut.
    """

    header_s: float
    answer_s: float


class Connection(H11Protocol):
    """uvicorn's, which alone would wait forever for a request's headers, and for a client to read its answer."""

    def __init__(self, *arguments: Any, patience: Patience, origins: Collection[str] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._patience, self._origins = patience, origins
        self._timer: asyncio.TimerHandle | None = None
        self._answered: RequestResponseCycle | None = None
        self._unread = 0
        self._asked_at = self._taken_at = self._looked_at = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch."""
        super().connection_made(transport)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """End it."""
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        """Note that the client reads."""
        self._taken_at = self.loop.time()
        super().resume_writing()

    def shutdown(self) -> None:
        """End when nothing is asked any more: on a connection that looks idle, a request may be on its way."""
        if self.cycle is None or self.cycle.response_complete:
            self._unset_keepalive_if_required()
            self._asked_at = self.loop.time()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with a problem document, and close."""
        problem = ProblemError("malformed_request", "an HTTP/1.1 request", "another, or headers that are too long")
        request_id = uuid.uuid4().hex
        body = json.dumps(problem.document(request_id)).encode()
        own = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), "X-Request-ID": request_id}
        headers = [*own.items(), *self._cors_headers(), ("Connection", "close")]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # else an answer has begun, and is cut
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event))
        self.transport.close()

    def _cors_headers(self) -> Iterator[tuple[str, str]]:
        """Yield what lets an allowed origin read the answer: headers that are too long never reach the application."""
        if "*" in self._origins:
            yield "Access-Control-Allow-Origin", "*"
            return
        found = _ORIGIN.search(self.conn.trailing_data[0])
        if found and found[1].decode() in self._origins:
            yield "Access-Control-Allow-Origin", found[1].decode()
            yield "Vary", "Origin"

    def _look(self) -> None:
        now = self.loop.time()
        stood_still_s = max(0.0, now - self._looked_at - 2 * _LOOK_EVERY_S)  # the service or its machine, no client
        self._asked_at, self._taken_at = self._asked_at + stood_still_s, self._taken_at + stood_still_s
        self._looked_at = now
        is_answered_early = self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY
        is_idle = self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None
        waits_for_headers = is_idle or is_answered_early
        if not waits_for_headers or self.cycle is not self._answered:
            self._answered, self._asked_at = self.cycle, now
        unread = self.transport.get_write_buffer_size()
        if not unread or unread < self._unread:
            self._taken_at = now
        self._unread = unread
        if now - self._taken_at > self._patience.answer_s:
            self.transport.abort()
            return
        if now - self._asked_at > self._patience.header_s:
            self.transport.close()
        self._timer = self.loop.call_later(_LOOK_EVERY_S, self._look)
