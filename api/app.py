"""The FastAPI application."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from keras_matting._version import __version__

from . import observability, page
from .admission import Admission, Rate
from .answers import BOX_HEADER, CONFIDENCE_HEADER
from .budget import Budget
from .memory import STREAM_BYTES, Bodies, for_bodies
from .middleware import Problems, RequestContext
from .observability import Metrics
from .problems import HANDLERS
from .routes import batch, inference, matte, rembg, status
from .settings import ServiceSettings, read_settings
from .worker import LocalWorker, Worker

DESCRIPTION = """Cut-outs and mattes of clothing, people and products.

Every error is an RFC 9457 problem document with a stable `code`. Answers carry `X-Request-ID`, and the matting ones
`Server-Timing`.
"""


def create_app(
    settings: ServiceSettings | None = None,
    make_worker: Callable[..., Worker] = LocalWorker,
    on_failure: Callable[[Exception], None] = lambda error: None,
) -> FastAPI:
    """Return the application. Models load after its start; `/readyz` tells when they are ready.

    `settings`: `ServiceSettings`, by default the environment's. `make_worker(settings, metrics, on_failure)`
    returns the `Worker` that computes. `on_failure(error)` is called if a model cannot be opened.
    """
    settings = settings or read_settings()
    app = FastAPI(
        title="keras_matting",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_lifespan,
        exception_handlers=HANDLERS,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a client that does not follow would keep the empty answer for its photo
    )
    app.state.settings, app.state.draining = settings, False
    app.state.metrics = Metrics()
    app.state.admission = Admission("requests", settings.queue, lambda: app.state.metrics.seconds_per_photo)
    app.state.streams = Admission("streams", settings.streams, lambda: app.state.metrics.seconds_per_photo)
    app.state.stream_bytes, app.state.bodies = Budget(STREAM_BYTES), Bodies(for_bodies(settings))
    app.state.rate = Rate(settings.client_per_minute)
    app.state.worker = make_worker(settings, app.state.metrics, on_failure)
    routers = [module.router for module in (page, matte, batch, rembg, inference, status)]
    app.state.routes = [route for router in routers for route in router.routes]
    for router in routers:
        app.include_router(router)
    app.add_middleware(Problems, state=app.state)  # the innermost; each that follows stands around those before it
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=[
                "Inference-Header-Content-Length",
                "Retry-After",
                "Server-Timing",
                "X-Request-ID",
                BOX_HEADER,
                CONFIDENCE_HEADER,
            ],
        )
    app.add_middleware(RequestContext, state=app.state)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    await app.state.worker.start()
    yield
    await app.state.worker.close()


def from_environment() -> FastAPI:
    """Return the application with the environment's settings, for `uvicorn --factory`."""
    settings = read_settings()
    observability.log_to_stderr(settings.log_level)
    return create_app(settings)


__all__ = ["ServiceSettings", "create_app", "from_environment"]
