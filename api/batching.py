"""Dynamic micro-batching: what waits is run together, and one bad item fails alone."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from keras_matting.arrays import Float32


@dataclass(frozen=True)
class Answer:
    """One item's result and how long it waited and ran, in milliseconds."""

    result: Float32
    queue_ms: float
    infer_ms: float


@dataclass(frozen=True)
class _Item:
    tensor: Float32
    future: asyncio.Future[Answer]
    since: float


class Batcher:
    """Runs tensors of one shape in batches, one batch at a time, in order of arrival.

    `run`: coroutine function, (N, ...) -> N results. `diagnose`: coroutine function that turns the exception of a
    single item into the one to raise. `max_delay_s`: how long the first of a batch waits for more; without it a batch
    is what waits when the engine is free. `observe(size, seconds)` is called after each run. An item whose caller has
    been cancelled is not run. How many wait is bounded by who calls.
    """

    def __init__(
        self,
        run: Callable[[Float32], Awaitable[Sequence[Float32] | Float32]],
        diagnose: Callable[[Exception], Awaitable[Exception]],
        max_batch: int = 1,
        max_delay_s: float = 0.0,
        observe: Callable[[int, float], object] = lambda size, seconds: None,
    ) -> None:
        self._run, self._diagnose, self._observe = run, diagnose, observe
        self._max_batch, self._max_delay_s = max_batch, max_delay_s
        self._waiting: deque[_Item] = deque()
        self._running: list[_Item] = []
        self._arrived = asyncio.Event()
        self.busy_since: float | None = None  # time.perf_counter() of the run in progress
        self._task = asyncio.create_task(self._work())

    def __len__(self) -> int:
        return len(self._waiting)

    async def submit(self, tensor: Float32) -> Answer:
        """Return the tensor's `Answer`; raises what `diagnose` made of its failure."""
        item = _Item(tensor, asyncio.get_running_loop().create_future(), time.perf_counter())
        self._waiting.append(item)
        self._arrived.set()
        return await item.future

    async def close(self) -> None:
        """Stop; who still waits for a result is cancelled."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for item in (*self._running, *self._waiting):
            item.future.cancel()

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                await self._arrival()
            if self._max_delay_s:
                await self._fill(self._waiting[0].since + self._max_delay_s)
            self._running = [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]
            await self._solve(self._running)

    async def _fill(self, until: float) -> None:
        while len(self._waiting) < self._max_batch and (left := until - time.perf_counter()) > 0:
            try:
                await asyncio.wait_for(self._arrival(), left)
            except TimeoutError:
                return

    async def _arrival(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()

    async def _solve(self, items: Sequence[_Item]) -> None:
        """Run items together; where that fails, each half by itself."""
        items = [item for item in items if not item.future.done()]  # a client that left is not computed
        if not items:
            return
        start = self.busy_since = time.perf_counter()
        try:
            results = await self._run(np.stack([item.tensor for item in items]))
            if len(results) != len(items):
                raise ValueError(f"{len(results)} results of {len(items)} items")
        except Exception as error:  # whatever a runtime raises
            self.busy_since = None
            if len(items) == 1:
                _settle(items[0].future, await self._diagnose(error))
                return
            middle = len(items) // 2
            await self._solve(items[:middle])
            await self._solve(items[middle:])
            return
        seconds, self.busy_since = time.perf_counter() - start, None
        self._observe(len(items), seconds)
        for item, result in zip(items, results, strict=True):
            _settle(item.future, Answer(result, (start - item.since) * 1000, seconds * 1000))


def _settle(future: asyncio.Future[Answer], outcome: Answer | Exception) -> None:
    if future.done():  # its caller left meanwhile
        return
    if isinstance(outcome, Answer):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)
