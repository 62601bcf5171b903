"""Models fetched and exported in a process of their own: that takes TensorFlow, whose memory would stay."""

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable

import anyio

from keras_matting.errors import EngineError, MattingError, UsageError, WeightsError
from keras_matting.weights.fetch import ready_model_dir, usable_model_dir

_STATUS_OF = {UsageError: 3, WeightsError: 4, EngineError: 5}
_ERROR_OF = {status: error for error, status in _STATUS_OF.items()}
_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}


async def bring(model: str, log: Callable[[str], object]) -> None:
    """Have `model`, a path or a name, fetched and exported where that is not done; `log(message)` is told each step.

    Raises the `MattingError` that tells why that is impossible.
    """
    if await anyio.to_thread.run_sync(usable_model_dir, model):
        return
    command = (sys.executable, "-m", "keras_matting_api.fetching", model)
    process = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, env={**_ENVIRONMENT, **os.environ}
    )
    assert process.stdout  # a pipe, as asked for
    last = ""
    try:
        async for line in process.stdout:
            last = line.decode(errors="replace").rstrip("\n")
            log(last)
        status = await process.wait()
    finally:
        if process.returncode is None:  # the service ends
            process.terminate()
            await process.wait()
    if status:
        raise _ERROR_OF.get(status, EngineError)(last or f"Fetching {model} ended with status {status}.")


def main(model: str) -> int:
    """Fetch and export a model; a line on standard output for each step, and last for what went wrong."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what is half done is removed
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.WARNING)
    logging.getLogger("keras_matting").setLevel(logging.INFO)
    try:
        ready_model_dir(model)
    except MattingError as error:
        print(error, flush=True)  # noqa: T201 - for the service, which reads it
        return _STATUS_OF.get(type(error), 1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
