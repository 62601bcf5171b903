"""What the routes ask: photos in, outputs back. `LocalWorker` computes in this process; others may do it elsewhere."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from keras_matting.arrays import Float32
from keras_matting.errors import EngineError, LackingError, MattingError, UsageError
from keras_matting.machine import usable_cores
from keras_matting.matting import OutputOptions, Session
from keras_matting.photos import footprint
from keras_matting.photos.files import Photo
from keras_matting.photos.framing import Box, CanvasTooLargeError
from keras_matting.photos.subject import EmptyMatteError

from . import memory, observability, photos, problems
from .negotiation import EXTENSIONS
from .observability import Metrics
from .on_demand import OnDemandModel
from .problems import ProblemError
from .refining import AT_ONCE, Refiner
from .served_model import ServedModel
from .settings import ServiceSettings

_COMPILER_PATIENCE = 0.5  # of the deadline
PHASES = ("decode", "queue", "infer", "encode")


@dataclass(frozen=True)
class Job:
    """A photo's bytes and what to make of it; `model` None is the default one. Survives pickling."""

    data: bytes
    options: OutputOptions = OutputOptions()
    media_type: str = "image/png"
    model: str | None = None


@dataclass(frozen=True)
class Done:
    """An output's bytes, its size in pixels, who made it, and the milliseconds of each of `PHASES`.

    `box`: where the subject is in the upright photo, of outputs that are framed. `confidence`: as
    `keras_matting.confidence` counts it, from 0 (nothing was taken) to 1.
    """

    content: bytes
    media_type: str
    width: int
    height: int
    model: str
    engine: str
    confidence: float
    phases_ms: dict[str, float] = field(default_factory=dict)
    box: Box | None = None


class Worker(Protocol):
    """What the routes need. Every method raises `ProblemError`."""

    async def start(self) -> None:
        """Begin to load; `ready` tells when that is done."""

    async def matte(self, job: Job) -> Done:
        """Do one `Job` within the deadline."""

    async def infer(self, model: str, batch: Float32) -> Float32:
        """Return raw mattes (N, h, w, 1) for prepared photos float32 (N, h, w, 3) within the deadline."""

    def models(self) -> list[dict[str, Any]]:
        """Return what `/v1/models` lists, the default model first."""

    def model(self, name: str | None) -> dict[str, Any]:
        """Return the description of one model; 404 if it is not served."""

    def explain(self, name: str | None) -> dict[str, Any]:
        """Return what serves a model and why."""

    @property
    def ready(self) -> bool:
        """Whether every model can be asked, but for those that are opened on demand."""

    @property
    def alive(self) -> bool:
        """Whether waiting may still help; else the process is to be replaced."""

    async def close(self) -> None:
        """Free everything."""


class _Encoded(NamedTuple):
    """An output's bytes, (width, height), and what `keras_matting.photos.output.Finished` tells of it."""

    content: bytes
    size: tuple[int, int]
    box: Box | None
    confidence: float


class _Room(NamedTuple):
    """Places for plain photos and for refined ones, and the memory that all of them share."""

    plain: asyncio.Semaphore
    refined: asyncio.Semaphore
    memory: memory.PhotoMemory


class LocalWorker:
    """Models in this process. What happens is logged, and counted by `metrics`.

    Decoded photos are large, so few are out at a time, and no more than the memory holds: what waits for the engine
    beyond these waits as bytes.
    `on_failure(error)` is called if a model cannot be opened at all.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        metrics: Metrics,
        on_failure: Callable[[Exception], object] = lambda error: None,
    ) -> None:
        self._settings, self._metrics, self._on_failure = settings, metrics, on_failure
        self._limits = photos.Limits(settings.max_megapixels, settings.max_side_px)
        self._served = [ServedModel(model, settings, metrics.ran) for model in settings.models]
        others = (OnDemandModel(model, settings, metrics.ran) for model in settings.models_on_demand)
        names = {served.name for served in self._served}
        self._offered = [*self._served, *(model for model in others if model.name not in names)]
        # Pools of their own, since a thread goes on when its caller gives up.
        self._codec = ThreadPoolExecutor(usable_cores(), "codec")
        self._refiner = Refiner()
        self._headers = ThreadPoolExecutor(1, "headers")  # of files: a long one must not keep others from arriving
        self._room: _Room | None = None  # once the models are open; without it nothing is served
        self._loading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See `Worker.start`."""
        self._loading = asyncio.create_task(self._load())
        self._refiner.start()

    async def _load(self) -> None:
        try:
            for served in self._served:
                await served.open()
                if [other.name for other in self._offered].count(served.name) > 1:
                    raise UsageError(f"Expected models of different names; received {served.name} twice.")
        except Exception as error:  # whatever a runtime raises; without an end it would be loading forever
            failure = error
            if not isinstance(error, MattingError):
                failure = EngineError(f"{served.name} cannot be opened: {type(error).__name__}: {error}")
            observability.log(str(failure))
            self._on_failure(failure)
            return
        refined = AT_ONCE + 1  # one is prepared meanwhile
        places = usable_cores() + 2 * max(served.batching.max_batch for served in self._served)
        total = memory.for_photos(self._settings)
        observability.log(f"photos may take {total // memory.MIB} MiB of memory")
        room = memory.PhotoMemory(total, places + refined)
        self._room = _Room(asyncio.Semaphore(places), asyncio.Semaphore(refined), room)

    async def matte(self, job: Job) -> Done:
        """See `Worker.matte`."""
        served, room = self._asked(job.model)
        async with deadline(self._settings.deadline_s):
            start = time.perf_counter()
            cost = await asyncio.get_running_loop().run_in_executor(self._headers, self._cost, job)
            room.memory.check(cost)
            async with AsyncExitStack() as places:
                if _is_refined(job):  # those that wait for their turn must not hold memory that plain photos could use
                    await self._refiner.ready(_COMPILER_PATIENCE * self._settings.deadline_s)
                    await places.enter_async_context(room.refined)
                hold = await places.enter_async_context(room.memory.hold(cost))
                if not _is_refined(job):
                    await places.enter_async_context(room.plain)
                waited_ms = _ms_since(start)
                return await self._matte(served, job, hold, waited_ms)

    async def _matte(self, served: ServedModel, job: Job, hold: memory.Hold, waited_ms: float) -> Done:
        session = served.session
        start = time.perf_counter()
        photo, tensor = await hold.run(self._codec, self._decode, session, job.data)
        decode_ms = _ms_since(start)
        answer = await served.predict(tensor)
        start = time.perf_counter()
        pool = self._refiner.pool if _is_refined(job) else self._codec
        made = await hold.run(pool, self._encode, session, photo, answer.result, job)
        phases_ms = dict(
            zip(PHASES, (decode_ms, waited_ms + answer.queue_ms, answer.infer_ms, _ms_since(start)), strict=True)
        )
        self._metrics.did(served.name, phases_ms, made.confidence)
        return Done(
            made.content,
            job.media_type,
            *made.size,
            served.name,
            session.engine.name,
            made.confidence,
            phases_ms,
            made.box,
        )

    def _cost(self, job: Job) -> int:
        """Return the bytes of memory that a job takes; raises `ProblemError` on what its first bytes tell."""
        photos.check(job.data, self._limits)
        photos.check_canvas(job.options, self._limits)
        return footprint.of_file(job.data, job.options, EXTENSIONS[job.media_type])

    def _decode(self, session: Session, data: bytes) -> tuple[Photo, Float32]:
        photo = photos.decode(data, self._limits)
        return photo, session.prepare(photo)

    def _encode(self, session: Session, photo: Photo, raw_matte: Float32, job: Job) -> _Encoded:
        try:
            image, box, sure = session.finish(photo, raw_matte, job.options, self._check_framed)
        except EmptyMatteError as error:
            raise problems.of_sentence("no_subject", error) from None
        except CanvasTooLargeError as error:
            raise problems.of_sentence("image_too_large", error) from None
        except LackingError as error:
            raise problems.of_lacking(error) from None
        except UsageError as error:  # no room on the canvas
            raise problems.of_sentence("invalid_parameter", error) from None
        except MattingError as error:  # refining may find no solution
            raise ProblemError("inference_failed", "an output", "none", str(error)) from None
        return _Encoded(photos.encode(image, job.media_type), (image.shape[1], image.shape[0]), box, sure)

    def _check_framed(self, width: int, height: int) -> None:
        photos.check_size(width, height, self._limits)

    async def infer(self, model: str, batch: Float32) -> Float32:
        """See `Worker.infer`."""
        served, _ = self._asked(model)
        async with deadline(self._settings.deadline_s):
            return await served.predict_batch(batch)

    def models(self) -> list[dict[str, Any]]:
        """See `Worker.models`."""
        return [served.describe() for served in self._offered]

    def model(self, name: str | None) -> dict[str, Any]:
        """See `Worker.model`."""
        return self._named(name).describe()

    def explain(self, name: str | None = None) -> dict[str, Any]:
        """See `Worker.explain`."""
        return self._find(name)[0].explain()

    @property
    def ready(self) -> bool:
        """See `Worker.ready`."""
        return self._room is not None and all(served.state == "ready" for served in self._served)

    @property
    def alive(self) -> bool:
        """See `Worker.alive`."""
        return not any(served.stalled for served in self._offered)

    @property
    def waiting(self) -> int:
        """How many photos wait for an engine."""
        return sum(served.waiting for served in self._offered)

    async def close(self) -> None:
        """See `Worker.close`."""
        if self._loading:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        for served in self._offered:
            await served.close()
        for pool in (self._headers, self._codec):
            pool.shutdown(wait=False, cancel_futures=True)
        await self._refiner.close()

    def _named(self, name: str | None) -> ServedModel:
        for served in self._offered:
            if name in (None, served.name):
                return served
        if self._room is None:  # a model tells its name when it is open
            raise _still_loading()
        names = ", ".join(served.name for served in self._offered)
        raise ProblemError("unknown_model", f"a model out of {names}", repr(name)[:80])

    def _asked(self, name: str | None) -> tuple[ServedModel, _Room]:
        """Return a model that can compute now, and the room; one that waits to be asked begins to get ready."""
        if self._room is not None:
            self._named(name).want()
        return self._find(name)

    def _find(self, name: str | None) -> tuple[ServedModel, _Room]:
        served = self._named(name)
        served.check_ready()
        if self._room is None:  # another one is still loading
            raise _still_loading()
        return served, self._room


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """End what runs inside with the problem "deadline_exceeded" after so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise ProblemError("deadline_exceeded", f"an answer within {seconds:g} s", "none", "Try again later.") from None


def _is_refined(job: Job) -> bool:
    return bool(job.options.refine or job.options.foreground)


def _still_loading() -> ProblemError:
    return ProblemError("not_ready", "models that are ready", "a service that is starting", "Ask again.", 1)


def _ms_since(start: float) -> float:
    return (time.perf_counter() - start) * 1000
