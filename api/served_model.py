"""One model being served: its engine opened in the background, its batcher, and recovery when the engine fails."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import numpy as np

from keras_matting.arrays import Float32
from keras_matting.engines import device_name
from keras_matting.engines.artefacts import fixed_batch
from keras_matting.errors import MattingError, UsageError
from keras_matting.matting import Session, open_session
from keras_matting.model_folder import Verdict
from keras_matting.shipped import PLAIN_NAMES

from . import observability
from .batching import Answer, Batcher
from .fetching import bring
from .problems import ProblemError
from .settings import ServiceSettings

_Result = TypeVar("_Result")
_GPU_ENGINES = ("onnx-cuda", "onnx-tensorrt", "tensorrt-", "tftrt-")
_GPU_BATCH, _GPU_DELAY_MS = 8, 5.0
_FIRST_RETRY_S, _LAST_RETRY_S = 0.5, 30.0
STALLED_S = 60  # an engine that computes for so long will not come back


@dataclass(frozen=True)
class Batching:
    """How many photos run together, and how long the first waits for the others."""

    max_batch: int
    max_delay_ms: float


@dataclass
class _Opened:
    """What is there of a model that is open. `session`: another one after the engine has failed."""

    session: Session
    batching: Batching
    batcher: Batcher


class ServedModel:
    """A model folder behind a batcher. States: "loading", "ready", "failed" (being opened again), "closed".

    `observe(model, batch_size, seconds)` is called after each run of the engine.
    """

    def __init__(self, model: str, settings: ServiceSettings, observe: Callable[[str, int, float], object]) -> None:
        self._model, self._settings = model, settings
        self.name = Path(model).absolute().name  # until it is open and tells its own
        self.state = "loading"
        self._opened: _Opened | None = None
        self.failures = 0
        self._observe = observe
        self._thread = anyio.CapacityLimiter(1)
        self._retry_at = 0.0
        self._reopening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the engine and warm it up; raises `MattingError` if that is impossible."""
        await bring(self._model, observability.log)
        session = await self._in_thread(self._open)
        self.name = session.preset.name
        with ExitStack() as unless_known:
            unless_known.callback(session.close)
            batching = _batching_of(session, self._settings)
            unless_known.pop_all()
        batcher = Batcher(
            self._run,
            self._diagnose,
            batching.max_batch,
            batching.max_delay_ms / 1000,
            partial(self._observe, self.name),
        )
        self._opened = _Opened(session, batching, batcher)
        for size in {1, batching.max_batch}:
            await self._warm_up(size)
        self.state = "ready"
        observability.log(f"{self.name}: {self.session.engine.name} serves.")

    async def close(self) -> None:
        """Stop the batcher and close the engine."""
        self.state = "closed"
        if self._reopening:
            self._reopening.cancel()
        await self.discard()

    async def discard(self) -> None:
        """Give up what is open, or half open."""
        if self._opened:
            await self._opened.batcher.close()  # its last batch still needs the session
            await self._in_thread(self._opened.session.close)
        self._opened = None

    def want(self) -> None:
        """Tell that somebody asks for it, where that is what it waits for; this one is opened at the start."""

    async def predict(self, tensor: Float32) -> Answer:
        """Return the `Answer` for one prepared photo (height, width, 3); raises `ProblemError`."""
        self.check_ready()
        return await self._now.batcher.submit(tensor)

    async def predict_batch(self, batch: Float32) -> Float32:
        """Return mattes (N, h, w, 1) for prepared photos (N, h, w, 3)."""
        answers = await asyncio.gather(*(self.predict(tensor) for tensor in batch))
        return np.stack([answer.result for answer in answers])

    def check_ready(self) -> None:
        """Raise `ProblemError` unless the engine can be asked."""
        if self.state == "failed":
            raise self._failed()
        if self.state != "ready":
            raise ProblemError("not_ready", "a model that is ready", f"{self.name}, {self.state}", "Ask again.", 1)

    @property
    def session(self) -> Session:
        """The session of a model that is open, as it is once `check_ready` lets a caller by."""
        return self._now.session

    @property
    def batching(self) -> Batching:
        """How an open model's photos run together."""
        return self._now.batching

    @property
    def _now(self) -> _Opened:
        assert self._opened, self.state  # nobody asks before `check_ready` has let them by
        return self._opened

    @property
    def waiting(self) -> int:
        """How many photos wait for the engine."""
        return len(self._opened.batcher) if self._opened else 0

    @property
    def stalled(self) -> bool:
        """Whether the engine has been computing one batch for longer than any batch takes."""
        busy_since = self._opened.batcher.busy_since if self._opened else None
        return busy_since is not None and time.perf_counter() - busy_since > STALLED_S

    def describe(self) -> dict[str, Any]:
        """Return what `/v1/models` says of it."""
        described = {"name": self.name, "ready": self.state == "ready", "state": self.state}
        if self.name in PLAIN_NAMES:
            described["title"] = PLAIN_NAMES[self.name]
        if self._opened:
            session = self._opened.session
            preset = session.preset
            described |= {"architecture": preset.architecture, "input_size": list(preset.input_size)}
            if preset.licence:
                described["licence"] = preset.licence
            described |= {"engine": session.engine.name, "max_batch": self._opened.batching.max_batch}
        return described

    def explain(self) -> dict[str, Any]:
        """Return what `/v1/engine` says: the engine, and why it was chosen."""
        self.check_ready()
        engine, chosen_by, reason = self.session.choice
        explained = {"model": self.name, "engine": engine.name, "runs_as": engine.describe(), "device": device_name()}
        reason = reason or f"the setting engine is {self._settings.engine}"
        return explained | {"chosen_by": chosen_by, "reason": reason}

    def _open(self) -> Session:
        return open_session(self._model, self._settings.engine)

    def _blank(self, size: int) -> Float32:
        return np.zeros((size, *self.session.preset.input_size, 3), np.float32)

    async def _warm_up(self, size: int) -> None:
        mattes = await self._in_thread(self.session.predict, self._blank(size))
        if mattes.ndim != 4 or mattes.shape[0] != size or mattes.shape[3] != 1:
            raise UsageError(f"Expected a model that gives mattes (N, H, W, 1); {self.name} gives {mattes.shape}.")

    def _in_thread(self, function: Callable[..., _Result], *arguments: Any) -> Awaitable[_Result]:
        return anyio.to_thread.run_sync(function, *arguments, limiter=self._thread)

    async def _run(self, batch: Float32) -> Float32:
        self.check_ready()
        return await self._in_thread(self.session.predict, batch)

    async def _diagnose(self, error: Exception) -> Exception:
        """Tell a photo that the engine cannot compute from an engine that computes nothing any more."""
        if isinstance(error, ProblemError):
            return error
        try:
            await self._run(self._blank(1))
        except ProblemError as problem:
            return problem
        except Exception as second:  # whatever a runtime raises
            self.state, self.failures = "failed", self.failures + 1
            observability.log(f"{self.name}: {self.session.engine.name} failed: {second}")
            self._reopening = asyncio.create_task(self._reopen())
            return self._failed()
        reason = str(error) if isinstance(error, MattingError) else type(error).__name__
        return ProblemError("inference_failed", "a matte", reason, "Try another photo or model.")

    async def _reopen(self) -> None:
        pause_s = _FIRST_RETRY_S
        while self.state == "failed":
            self._retry_at = time.monotonic() + pause_s
            await asyncio.sleep(pause_s)
            try:
                await self._in_thread(self.session.close)
                self._now.session = await self._in_thread(self._open)
                await self._warm_up(1)
            except Exception as error:  # whatever a runtime raises; it is tried again
                observability.log(f"{self.name}: still failing: {error}")
                pause_s = min(2 * pause_s, _LAST_RETRY_S)
            else:
                self.state = "ready"
                observability.log(f"{self.name}: {self.session.engine.name} serves again.")

    def _failed(self) -> ProblemError:
        seconds = max(1, math.ceil(self._retry_at - time.monotonic()))
        return ProblemError(
            "engine_failed", "a working engine", f"{self.name}, being opened again", "Ask again.", seconds
        )


def _batching_of(session: Session, settings: ServiceSettings) -> Batching:
    """Return the model's `Batching`: as set, else the batch size that was measured to be the fastest here."""
    on_gpu = session.engine.name.startswith(_GPU_ENGINES)
    delay_ms = settings.max_delay_ms
    if delay_ms is None:
        delay_ms = _GPU_DELAY_MS if on_gpu else 0.0
    measured = Verdict.read(session.model_dir, device_name()).fastest_batch(session.engine.name)
    max_batch = fixed_batch(session.model_dir) or settings.max_batch or measured or (_GPU_BATCH if on_gpu else 1)
    return Batching(max_batch, delay_ms)
