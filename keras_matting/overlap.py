"""Work of threads, side by side, whose results keep their order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def in_order(function: Callable[[_In], _Out], items: Iterable[_In], workers: int) -> Generator[_Out, None, None]:
    """Yield `function` of each item, in their order, computed by `workers` threads, at most as many items ahead.

    Closed, it closes `items`, where that is a generator.
    """
    computing: deque[Future[_Out]] = deque()
    with ExitStack() as stack:
        if isinstance(items, Generator):
            stack.enter_context(closing(items))
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        for item in items:
            computing.append(pool.submit(function, item))
            if len(computing) > workers:
                yield computing.popleft().result()
        while computing:
            yield computing.popleft().result()
