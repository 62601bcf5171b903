"""The thread that refines photos, and what it needs before the first one: pymatting compiles itself once a machine."""

import asyncio
import sys
from asyncio.subprocess import DEVNULL
from concurrent.futures import ThreadPoolExecutor

from keras_matting.photos.refine import is_compiled

from .problems import ProblemError

# Without the folder that the service runs in, whose files are not to be imported; behind everything else that runs.
_COMPILE = "import os, sys; sys.path.pop(0); getattr(os, 'nice', abs)(10); import pymatting"
_ASK_AGAIN_S = 10


class Refiner:
    """A thread of its own, since refining takes seconds and a gigabyte, and plain photos are not to wait for it.

    When pymatting is first imported on a machine it compiles itself for a minute, longer than a request may take. So a
    process does that, from the service's start where nothing was compiled yet, else before the first photo, as this
    processor may be another; what is to be refined meanwhile waits, or is told to come back.
    """

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, "refiner")
        self._compiling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to compile where that was never done."""
        if is_compiled() is False:
            self._compile()

    async def ready(self, patience_s: float) -> None:
        """Wait until it has compiled; raises `ProblemError` if it still does after `patience_s` seconds."""
        if not (await asyncio.wait({self._compile()}, timeout=patience_s))[0]:
            raise ProblemError(
                "not_ready",
                "a service that can refine",
                "one whose pymatting compiles itself, as it does once on a machine, for about a minute",
                "Ask again, or leave refine and foreground out (at /api/remove a, vm and dc).",
                _ASK_AGAIN_S,
            )

    def _compile(self) -> asyncio.Task[None]:
        self._compiling = self._compiling or asyncio.create_task(_import_elsewhere())
        return self._compiling

    async def close(self) -> None:
        """Give up what waits, and what still compiles."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        if self._compiling:
            self._compiling.cancel()
            await asyncio.gather(self._compiling, return_exceptions=True)


async def _import_elsewhere() -> None:
    """Import pymatting in a process; whether that fails, whoever imports it next is told."""
    command = (sys.executable, "-c", _COMPILE)
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
    try:
        await process.wait()
    finally:
        if process.returncode is None:  # the service ends
            process.kill()
            await process.wait()
