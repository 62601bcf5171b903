"""Stages that overlap: each runs in threads of its own, and waits where the next one is full."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import islice
from queue import Empty, Queue
from threading import Event, Thread
from typing import TypeVar

import numpy as np

from keras_matting.arrays import Float32
from keras_matting.errors import EngineError
from keras_matting.matting import Session
from keras_matting.video.reading import Frame

DEPTH = 4  # of each queue; a frame of 4K has 25 MB
_BATCHES = (1, 4)
_CALLS = 2  # of each size that are timed; the first warms up
_GAIN = 0.95  # of the time of single frames: a batch that is hardly faster only delays

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def ahead(items: Generator[_In, None, None], depth: int = DEPTH) -> Generator[_In, None, None]:
    """Yield what `items` yields, which runs in a thread, at most `depth` items ahead.

    What it raises is raised here. When this is closed, `items` is, too, before it returns.
    """
    queue: Queue[tuple[bool, _In | BaseException | None]] = Queue(depth)
    stop = Event()

    def work() -> None:
        end: BaseException | None = None
        try:
            with closing(items):
                for item in items:
                    queue.put((True, item))
                    if stop.is_set():
                        break
        except BaseException as error:  # handed over, whatever it is
            end = error
        queue.put((False, end))

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            is_item, value = queue.get()
            if is_item:
                yield value  # type: ignore[misc]
            elif isinstance(value, BaseException):
                raise value
            else:
                return
    finally:
        stop.set()
        while thread.is_alive():
            with suppress(Empty):
                queue.get(timeout=0.05)


def in_order(
    function: Callable[[_In], _Out], items: Generator[_In, None, None], workers: int
) -> Generator[_Out, None, None]:
    """Yield `function` of each item, in their order, computed by `workers` threads, at most as many items ahead."""
    computing: deque[Future[_Out]] = deque()
    with closing(items), ThreadPoolExecutor(workers, "render") as pool:
        for item in items:
            computing.append(pool.submit(function, item))
            if len(computing) > workers:
                yield computing.popleft().result()
        while computing:
            yield computing.popleft().result()


def prepared(session: Session, frames: Iterable[Frame]) -> Generator[tuple[Frame, Float32], None, None]:
    """Yield each frame with the model's input for it."""
    for frame in frames:
        yield frame, session.prepare(frame.photo)


def inferred(session: Session, inputs: Iterator[tuple[Frame, Float32]]) -> Iterator[tuple[Frame, Float32]]:
    """Yield each frame with its raw matte, in batches where the engine gains by them."""
    sizes = BatchSizes()
    while batch := list(islice(inputs, sizes.current)):
        tensors = np.stack([tensor for _, tensor in batch])
        start = time.perf_counter()
        try:
            mattes = session.predict(tensors)
        except EngineError:
            if len(batch) == 1:
                raise
            sizes.refuse()  # a graph that was built for single photos
            mattes = np.concatenate([session.predict(tensor[None]) for tensor in tensors])
        else:
            sizes.add(len(batch), time.perf_counter() - start)
        for (frame, _), matte in zip(batch, mattes, strict=True):
            yield frame, matte


class BatchSizes:
    """How many frames an engine is given at a time: each size is timed at first, then the faster one stays."""

    def __init__(self) -> None:
        self._ahead = deque(size for size in _BATCHES for _ in range(_CALLS))
        self._seconds: dict[int, float] = {}  # a frame, of the last call of each size
        self._best = _BATCHES[0]

    @property
    def current(self) -> int:
        """The size of the next batch."""
        return self._ahead[0] if self._ahead else self._best

    def add(self, size: int, seconds: float) -> None:
        """Note how long a batch took."""
        if self._ahead:
            self._ahead.popleft()
            self._seconds[size] = seconds / size
            single, several = (self._seconds.get(one, math.inf) for one in _BATCHES)
            if not self._ahead and several < _GAIN * single:
                self._best = _BATCHES[-1]

    def refuse(self) -> None:
        """Note that the engine takes single frames only."""
        self._ahead.clear()
        self._best = _BATCHES[0]
