"""What bodies and photos may take of the memory, so that what is admitted fits the limit the service runs under."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from keras_matting import cgroups
from keras_matting.photos import footprint

from .problems import ProblemError
from .settings import ServiceSettings

_Result = TypeVar("_Result")
MIB = 2**20
STREAM_BYTES = 64 * MIB  # lines of all streams that are inside, as they came
_COPIES = 3  # of a body: as it came, as text or parts, and the photos in it
_OF_BODIES = 1 / 8  # of the limit
_OF_SMALL = 1 / 8  # of what photos may take


def limit(settings: ServiceSettings) -> int:
    """Return the bytes that the service may take in all: as set, else as its control group or the machine says."""
    return int(settings.memory_mib * MIB) or cgroups.usable_memory() or 2**62


def for_bodies(settings: ServiceSettings) -> int:
    """Return the bytes that bodies may hold at a time: a share of the limit, or one body if that is more."""
    return max(int(limit(settings) * _OF_BODIES / _COPIES), settings.max_body_bytes)


def for_photos(settings: ServiceSettings, held: int | None = None) -> int:
    """Return the bytes that decoded photos may take; `held`: what the process holds already, by default as it is."""
    free = footprint.left(limit(settings), footprint.held() if held is None else held)
    return max(0, free - _COPIES * (for_bodies(settings) + STREAM_BYTES))


class Bodies:
    """Counts the bytes of the bodies that are inside."""

    def __init__(self, total: int) -> None:
        self._total, self._inside = total, 0

    def take(self, amount: int) -> None:
        """Count more bytes in; raises `ProblemError` if that is too much."""
        if self._inside + amount > self._total:
            raise ProblemError(
                "overloaded", f"bodies of {self._total // MIB} MiB in all at a time", "more", "Come back.", 1
            )
        self._inside += amount

    def give(self, amount: int) -> None:
        """Count them out."""
        self._inside -= amount


class PhotoMemory:
    """Memory for photos. Small ones need not ask: room for as many of them as there are `places` is set aside.

    The others come in one after another, each as soon as it fits, so that a large one is not passed by others forever.
    """

    def __init__(self, total: int, places: int) -> None:
        self._small = int(total * _OF_SMALL) // places
        self._total = self._left = total - self._small * places
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()  # costs, and what grants them

    def check(self, cost: int) -> None:
        """Raise `ProblemError` if a photo of such a cost can never be taken."""
        if cost > self._total:
            raise ProblemError(
                "image_too_large",
                f"a photo and an output that fit into {self._total // MIB} MiB of memory",
                f"one that takes {-(-cost // MIB)} MiB",
                "Scale the image down, or ask for less: refine and foreground take most.",
            )

    @asynccontextmanager
    async def hold(self, cost: int) -> "AsyncIterator[Hold]":
        """Wait until there is room for a photo, and keep it until the end; yields the `Hold`.

        What its threads still do for somebody who has left keeps the room until they are done.
        """
        held = Hold()
        if cost <= self._small:
            yield held
            return
        await self._take(cost)
        try:
            yield held
        finally:
            held.when_done(lambda: self._give(cost))

    async def _take(self, cost: int) -> None:
        if not self._waiting and cost <= self._left:
            self._left -= cost
            return
        granted = asyncio.get_running_loop().create_future()
        self._waiting.append((cost, granted))
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():  # the next one may fit
                self._grant()
            else:  # it was given in the same moment
                self._give(cost)
            raise

    def _give(self, cost: int) -> None:
        self._left += cost
        self._grant()

    def _grant(self) -> None:
        while self._waiting and (self._waiting[0][1].cancelled() or self._waiting[0][0] <= self._left):
            cost, granted = self._waiting.popleft()
            if not granted.cancelled():
                self._left -= cost
                granted.set_result(None)


class Hold:
    """A photo's room: who runs its steps in threads, and so knows when the last of them is done."""

    def __init__(self) -> None:
        self._running: Future[Any] | None = None

    async def run(self, pool: Executor, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """Run in a thread of `pool`; what has not begun when the caller gives up is not run."""
        self._running = running = pool.submit(function, *arguments)
        return await asyncio.wrap_future(running)

    def when_done(self, act: Callable[[], object]) -> None:
        """Call `act` in this thread, now or as soon as the step that runs is done."""
        if self._running is None or self._running.done():
            act()
            return
        loop = asyncio.get_running_loop()
        self._running.add_done_callback(lambda _: _unless_closed(loop, act))


def _unless_closed(loop: asyncio.AbstractEventLoop, act: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the service has ended meanwhile
        loop.call_soon_threadsafe(act)
