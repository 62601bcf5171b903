"""How long calls take: what the workers and the notebooks time with."""

import random
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

_Key = TypeVar("_Key", bound=Hashable)


def timed(call: Callable[[], object], seconds: float = 0.5, min_calls: int = 2) -> list[float]:
    """Call for `seconds`, at least `min_calls` times; return the milliseconds of each call."""
    calls: list[float] = []
    end = time.perf_counter() + seconds
    while len(calls) < min_calls or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        calls.append((time.perf_counter() - start) * 1000)
    return calls


def take_turns(ways: Mapping[_Key, Callable[[], list[float]]], rounds: int) -> dict[_Key, list[list[float]]]:
    """Visit all `ways` in each round, in a random order that repeats; return {way: what it gave in each round}.

    What slows the machine for a while then hits all of them alike, and ratios within a round can be trusted.
    """
    chance = random.Random(0)
    results: dict[_Key, list[list[float]]] = {key: [] for key in ways}
    for _ in range(rounds):
        for key in chance.sample(list(ways), len(ways)):
            results[key].append(ways[key]())
    return results
