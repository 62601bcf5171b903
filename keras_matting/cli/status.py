"""Exit statuses and messages, shared by all verbs."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

OK, SOME_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def show(text: str, end: str = "\n") -> None:
    """Print a result on standard output; what it cannot hold, as of a name that is not UTF-8, is escaped."""
    if sys.stdout is None:  # closed
        return
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), end=end, flush=True)


def say(message: str) -> None:
    """Tell the user something on standard error; standard output is for results."""
    if sys.stderr is not None:  # closed; print would take standard output for it
        print(message, file=sys.stderr, flush=True)


@contextmanager
def saying_what_is_logged() -> Iterator[None]:
    """Show what the library logs, from INFO on, as `say` does; users of the library see it if they ask `logging`."""
    logger = logging.getLogger("keras_matting")
    handlers, level, propagate = logger.handlers, logger.level, logger.propagate
    logger.handlers = [_Saying(logging.INFO)]
    logger.setLevel(logging.INFO)
    logger.propagate = False  # a handler of the root's would say everything twice
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


class _Saying(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())
