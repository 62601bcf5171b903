"""The process: uvicorn, with a drain before it ends."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from types import FrameType

import uvicorn
from fastapi import FastAPI

from . import observability
from .app import create_app
from .connections import Connection, Patience
from .listeners import listeners_at
from .middleware import LARGEST_HEADERS
from .settings import ServiceSettings, unknown_variables

_KEEP_ALIVE_S = 15
_LAST_PATIENCE_S = 1.0  # with connections on which nothing is asked, when all ends


def run(settings: ServiceSettings) -> None:
    """Serve until SIGTERM or SIGINT; raises the `MattingError` because of which a model could not be opened.

    On the first signal readiness turns to 503 while requests are still taken for `settings.drain_s`, so that load
    balancers look elsewhere; then the port closes, what is inside is finished, and the process ends. A second signal
    ends it at once, whatever is inside.
    """
    with observability.logging_to_stderr(settings.log_level):
        _serve(settings)


def _serve(settings: ServiceSettings) -> None:
    for name in unknown_variables(os.environ):  # not refused: Kubernetes makes such names of services called so
        observability.log(f"{name} is no setting of this service", logging.WARNING)
    failure: list[Exception] = []

    def stop(error: Exception) -> None:
        failure.append(error)
        server.should_exit = True

    app = create_app(settings, on_failure=stop)
    server = _Server(app, settings)
    with ExitStack() as open_ones:
        listeners = [open_ones.enter_context(listener) for listener in listeners_at(settings.host, settings.port)]
        for listener in listeners:
            host, port = listener.getsockname()[:2]
            observability.log("listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}")
        server.run(sockets=listeners)
    if failure:
        raise failure[0]


class _Server(uvicorn.Server):
    """Drains on the first signal, ends on the second."""

    def __init__(self, app: FastAPI, settings: ServiceSettings) -> None:
        self._patience = Patience(header_s=settings.body_grace_s, answer_s=settings.deadline_s)
        config = uvicorn.Config(
            app,
            http=partial(Connection, patience=self._patience, origins=settings.cors_origins),  # type: ignore[arg-type]
            ws="none",
            h11_max_incomplete_event_size=LARGEST_HEADERS,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(settings.deadline_s + settings.body_grace_s) + 1,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
        )
        super().__init__(config)
        self._state, self._drain_s = app.state, settings.drain_s
        self._drained_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; `on_tick` ends it."""
        if self._state.draining:
            os._exit(128 + sig)  # threads of an engine that hangs would outlive anything gentler
        if not self.started:
            super().handle_exit(sig, frame)
            return
        self._state.draining = True
        self._drained_at = time.monotonic() + self._drain_s

    async def on_tick(self, counter: int) -> bool:
        """Tell the serving loop, ten times a second, whether to leave."""
        if self._drained_at is not None and time.monotonic() >= self._drained_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, and serve whom the kernel let in before: closing alone would reset their connections."""
        self._state.draining = True  # also where no signal came, but a model that cannot be opened
        self._patience.header_s = min(self._patience.header_s, _LAST_PATIENCE_S)
        let_in = [connection for listener in sockets or () for connection in _waiting(listener)]
        for server in self.servers:
            server.close()
        for connection in let_in:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        config = self.config
        make: Callable[..., asyncio.Protocol] = config.http_protocol_class
        return make(config=config, server_state=self.server_state, app_state=self.lifespan.state)


def _waiting(listener: socket.socket) -> Iterator[socket.socket]:
    """Yield the connections that a listening socket, non-blocking, has in its backlog."""
    while True:
        try:
            yield listener.accept()[0]
        except OSError:  # BlockingIOError: there are no more
            return
