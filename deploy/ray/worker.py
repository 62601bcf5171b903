"""The `Worker` of an ingress: engines are other processes, perhaps elsewhere, and may die."""

import asyncio
import math
import time
from dataclasses import replace

from keras_matting_api import observability
from keras_matting_api.problems import ProblemError
from keras_matting_api.worker import deadline
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

_WATCH_S = 1
_TRIES = 2  # what an engine took to its grave is asked once more: matting changes nothing, so that is safe
_LOST = (RayActorError, ObjectLostError)


class RayWorker:
    """Asks the replicas of a deployment, through its handle `engine`. See `Worker`.

    What it tells of the models is what the replica said that was asked last, every second.
    """

    alive = True  # Ray replaces the engines

    def __init__(self, settings, metrics, on_failure, *, engine):
        self._settings, self._metrics, self._engine = settings, metrics, engine
        self._models = [{"name": name, "ready": False, "state": "loading"} for name in settings.models]
        self._explained = {}
        self._watching = None
        self.ready = False
        self.waiting = 0  # photos that are with an engine, or wait for one

    async def start(self):
        """See `Worker.start`."""
        self._watching = asyncio.create_task(self._watch())

    async def matte(self, job):
        """See `Worker.matte`; the phase "queue" is also whatever Ray needs."""
        self._check_ready()
        start, others = time.perf_counter(), self.waiting
        done = await self._count(1, self._ask("matte", job))
        elapsed_s = time.perf_counter() - start
        # Little's law: so many were inside for so long, hence one was done in each of these
        self._metrics.paced(elapsed_s / (1 + (others + self.waiting) / 2))
        rest_ms = 1000 * elapsed_s - sum(done.phases_ms.values())
        phases_ms = {**done.phases_ms, "queue": done.phases_ms["queue"] + max(0.0, rest_ms)}
        self._metrics.did(done.model, phases_ms, done.confidence)
        return replace(done, phases_ms=phases_ms)

    async def infer(self, model, batch):
        """See `Worker.infer`."""
        self._check_ready()
        return await self._count(len(batch), self._ask("infer", model, batch))

    def models(self):
        """See `Worker.models`."""
        return self._models

    def model(self, name):
        """See `Worker.model`."""
        for described in self._models:
            if name in (None, described["name"]):
                return described
        names = ", ".join(described["name"] for described in self._models)
        raise ProblemError("unknown_model", f"a model out of {names}", repr(name)[:80])

    def explain(self, name=None):
        """See `Worker.explain`."""
        described = self.model(name)
        self._check_ready()
        if (name := described["name"]) not in self._explained:
            raise ProblemError("model_loading", "a model that is ready", f"{name}, opened on demand", "Ask for it.", 1)
        return self._explained[name]

    async def close(self):
        """See `Worker.close`."""
        if self._watching:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self):
        while True:
            try:
                self._models, self._explained = await self._ask("describe")
                self.ready = True
            except ProblemError as problem:  # too busy to say is not "down"
                self.ready = self.ready and problem.code == "overloaded"
            except Exception as error:  # whatever Ray raises; it is asked again
                self.ready = False
                observability.log(f"no engine answers: {error}")
            await asyncio.sleep(_WATCH_S)

    async def _count(self, photos, work):
        self.waiting += photos
        try:
            return await work
        finally:
            self.waiting -= photos

    def _check_ready(self):
        if not self._explained:  # none has answered yet; later ones that die are waited for
            raise ProblemError("not_ready", "engines that are ready", "a service that is starting", "Ask again.", 1)

    async def _ask(self, method, *arguments):
        """Call a method of any replica within the deadline; raises `ProblemError`."""
        async with deadline(self._settings.deadline_s):
            for _ in range(_TRIES):
                try:
                    return await self._once(method, arguments)
                except _LOST as error:
                    observability.log(f"an engine was lost: {type(error).__name__}")
        raise ProblemError("engine_failed", "an engine that answers", f"{_TRIES} that were lost", "Ask again.", 1)

    async def _once(self, method, arguments):
        response = getattr(self._engine, method).remote(*arguments)
        try:
            return await response
        except asyncio.CancelledError:  # the client left, or the deadline passed: the engine need not go on
            response.cancel()
            raise
        except BackPressureError as error:
            waiting = error.args[0]
            seconds = max(1, math.ceil(self.waiting * self._metrics.seconds_per_photo))
            raise ProblemError("overloaded", "less requests", f"{waiting} that wait", "Come back.", seconds) from None
        except DeploymentUnavailableError:
            raise ProblemError("not_ready", "engines", "none that could be started", "Ask again.", 1) from None
        except RayTaskError as error:  # it came out of the replica
            raise error.cause from error
