"""What runs on the cluster: ingresses, which are the whole service but for its engines, and engines."""

import asyncio
from functools import partial

from keras_matting_api import observability
from keras_matting_api.app import create_app
from keras_matting_api.observability import Metrics
from keras_matting_api.settings import read_settings
from keras_matting_api.worker import LocalWorker
from ray import serve
from starlette.datastructures import MutableHeaders

from deploy.ray.scale import Scale
from deploy.ray.worker import RayWorker

_HEALTH_PERIOD_S, _HEALTH_TIMEOUT_S = 2, 10  # unhealthy three times in a row, an engine is replaced
_OPENING_TRIES = 3
_LOGGING = {"enable_access_log": False}  # the application writes its own lines
_STATUS_REQUESTS = 64  # health, metrics and the page, which the bound on photos leaves out


class Engine:
    """A replica: models in its process, batched. It counts as running once they are loaded."""

    async def __init__(self, settings):
        observability.log_to_stderr(settings.log_level)
        failures = []
        self._worker = LocalWorker(settings, Metrics(), failures.append)
        await self._worker.start()
        while not self._worker.ready:
            if failures:
                raise failures[0]
            await asyncio.sleep(0.02)

    async def matte(self, job):
        """See `Worker.matte`."""
        return await self._worker.matte(job)

    async def infer(self, model, batch):
        """See `Worker.infer`."""
        return await self._worker.infer(model, batch)

    async def describe(self):
        """Return (what `Worker.models` gives, what `Worker.explain` gives by name); `ProblemError` if loading.

        Of models on demand, this is what the replica has that was asked: each gets them ready for itself.
        """
        models = self._worker.models()
        asked = [model["name"] for model in models if model["ready"] or not model.get("on_demand")]
        return models, {name: self._worker.explain(name) for name in asked}

    async def check_health(self):
        """Raise if this replica is better replaced; Ray asks every few seconds."""
        if not (self._worker.alive and self._worker.ready):
            raise RuntimeError(f"not ready: {self._worker.models()}")


class _OneRequestId:
    """ASGI middleware that leaves the header `X-Request-ID` of an answer to Ray's proxy, which always adds one."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        async def without(message):
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)["X-Request-ID"]
            await send(message)

        await self._app(scope, receive, without)


class Ingress:
    """A replica of the FastAPI application, whose worker asks the engines."""

    def __init__(self, settings, engine):
        observability.log_to_stderr(settings.log_level)
        self._settings, self._engine = settings, engine

    def __serve_build_asgi_app__(self):
        app = create_app(self._settings, partial(RayWorker, engine=self._engine))
        app.add_middleware(_OneRequestId)
        return app


def app(scale: Scale):
    """Build the application with the settings of the environment; raises `UsageError` if they are not valid."""
    settings = read_settings()
    held = scale.max_replicas * scale.max_ongoing_requests
    engine = serve.deployment(
        Engine,
        name="Engine",
        autoscaling_config={
            "min_replicas": scale.min_replicas,
            "max_replicas": scale.max_replicas,
            "target_ongoing_requests": scale.target_ongoing_requests,
        },
        max_ongoing_requests=scale.max_ongoing_requests,
        max_queued_requests=settings.queue,
        ray_actor_options={"num_cpus": scale.cpus, "num_gpus": scale.gpus},
        health_check_period_s=_HEALTH_PERIOD_S,
        health_check_timeout_s=_HEALTH_TIMEOUT_S,
        graceful_shutdown_timeout_s=settings.deadline_s + 1,
        max_constructor_retry_count=_OPENING_TRIES,
        logging_config=_LOGGING,
    )
    ingress = serve.deployment(
        serve.ingress()(Ingress),
        name="Ingress",
        num_replicas=scale.ingresses,
        # More than the application admits, so that it is the application that refuses, with its own document.
        max_ongoing_requests=settings.queue + held + _STATUS_REQUESTS,
        max_queued_requests=settings.queue + held + _STATUS_REQUESTS,
        backpressure_config={"retry_after_s": 1},
        ray_actor_options={"num_cpus": 0.5},
        graceful_shutdown_timeout_s=settings.deadline_s + settings.body_grace_s + 1,
        logging_config=_LOGGING,
    )
    # The setting bounds what waits: here at Ray's queue. What the engines hold is inside besides.
    inside = settings.model_copy(update={"queue": settings.queue + held})
    return ingress.bind(inside, engine.bind(settings))
