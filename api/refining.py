"""The thread that refines photos, and what it needs before the first one: pymatting compiles itself once a machine."""

import asyncio
import logging
import sys
from asyncio.subprocess import DEVNULL, PIPE
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

from . import observability
from .problems import ProblemError

# Without the folder that the service runs in, whose files are not to be imported; behind everything else that runs.
_COMPILE = ("-P", "-c", "import os; getattr(os, 'nice', abs)(10); import pymatting")
AT_ONCE = 1  # photos that are refined
_BEGINS_S = 5  # after the service: the models are opened first
_ASK_AGAIN_S = 10


class Refiner:
    """A thread of its own, since refining takes seconds and a gigabyte, and plain photos are not to wait for it.

    When pymatting is first imported on a machine it compiles itself for a minute, longer than a request may take; in a
    container that keeps nothing, after each start. So a process imports it before the first photo asks for it; what is
    to be refined meanwhile waits, or is told to come back.
    """

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(AT_ONCE, "refiner")
        self._compiling: asyncio.Task[None] | None = None
        self._begins: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to compile, a little later; nothing where pymatting is not installed."""
        if find_spec("pymatting"):
            self._begins = asyncio.get_running_loop().call_later(_BEGINS_S, self._compile)

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
        if self._begins:
            self._begins.cancel()
        if self._compiling:
            self._compiling.cancel()
            await asyncio.gather(self._compiling, return_exceptions=True)


async def _import_elsewhere() -> None:
    """Import pymatting in a process; where that fails it is imported here when asked for, and that tells why."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *_COMPILE, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
    )
    try:
        _, told = await process.communicate()
    finally:
        if process.returncode is None:  # the service ends
            process.kill()
            await process.wait()
    if process.returncode:
        last = told.decode(errors="replace").strip().rpartition("\n")[2]
        observability.log(f"pymatting was not compiled (status {process.returncode}): {last}", logging.WARNING)
