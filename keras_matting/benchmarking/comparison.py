"""Which of several timed engines is the fastest, and which are as fast: ratios within rounds.

On a machine that others use too, times drift and jump, and the intervals of two engines overlap although one takes
twice as long. What happens to the machine happens to a whole round, so engines are compared inside it: the ratio of
one's median to the other's in the same round, then the median of these ratios over the rounds, with a bootstrap
interval.

Equal is what was shown to be equal, not what was not shown to differ: the whole interval lies within the margin
(equivalence testing by inclusion of the interval; Schuirmann 1987, "A comparison of the two one-sided tests
procedure"). With a 95 % interval, an engine slower than the margin is called equal in 2.5 % of the cases. That is not
corrected for how many engines are compared, nor for looking again after more rounds: rounds are doubled, so there are
few looks, and a wrong call costs little more than the margin. That the best was picked on the same rounds makes the
others look slower than they are, which can only take an equal engine's right to be preferred for its memory.
"""

from collections.abc import Callable, Mapping
from math import exp, lgamma, log, log1p
from typing import TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

from keras_matting.arrays import Float64

_Key = TypeVar("_Key")
CONFIDENCE = 0.95
MARGIN = 0.05
# The median of fewer rounds has no 95 % interval: with 5, all lie on one side of it in 2 * 0.5 ** 5 = 6 % of the cases.
MIN_ROUNDS = 6
_RESAMPLES = 2000


class Compared(TypedDict):
    """How one engine's times are to the fastest's; see `compare`."""

    ratio: float
    ci95: list[float]
    rounds: int
    state: str


def bootstrap(
    values: npt.ArrayLike, statistic: Callable[..., npt.NDArray[np.floating]] = np.median
) -> tuple[float, float]:
    """Return the 95 % percentile interval of `statistic` over `values`, resampled."""
    values = np.asarray(values)
    samples = statistic(np.random.default_rng(0).choice(values, (_RESAMPLES, len(values))), axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def fastest(times: Mapping[_Key, npt.ArrayLike]) -> _Key:
    """Return the key of `times`, {key: time of each round, NaN where it was not measured}, that beats every other.

    That is the one whose worst median ratio to another is the lowest: as ratios are taken within rounds, neither a
    drift nor rounds that only some took part in favour any.
    """
    return min(times, key=lambda key: max(np.median(_ratios(times[key], times[other])) for other in times))


def compare(times: Mapping[_Key, npt.ArrayLike], margin: float = MARGIN) -> tuple[_Key, dict[_Key, Compared]]:
    """Return (the fastest, {key: {"ratio", "ci95", "rounds", "state"}}) for `times` as in `fastest`.

    `ratio`: how many times as long as the fastest it takes. `state`: "fastest", or "equal" where the interval lies
    within 1 / (1 + margin) and 1 + margin, or "slower" where it lies above 1, or "undecided", which is all else.
    """
    best = fastest(times)
    compared: dict[_Key, Compared] = {}
    for key, own in times.items():
        ratios = _ratios(own, times[best])
        low, high = bootstrap(ratios)
        state = "fastest" if key == best else _state(low, high, len(ratios), margin)
        compared[key] = {"ratio": float(np.median(ratios)), "ci95": [low, high], "rounds": len(ratios), "state": state}
    return best, compared


def _state(low: float, high: float, rounds: int, margin: float) -> str:
    if rounds < MIN_ROUNDS:
        return "undecided"
    if 1 / (1 + margin) <= low and high <= 1 + margin:
        return "equal"
    return "slower" if low > 1 else "undecided"


def _ratios(times: npt.ArrayLike, others: npt.ArrayLike) -> Float64:
    """Return the ratios of the rounds in which both were measured."""
    ratios = np.asarray(times, float) / np.asarray(others, float)
    return ratios[np.isfinite(ratios)]


def upper_bound(count: int, n: int) -> float:
    """Return the 95 % upper confidence bound of a share of which `count` of `n` were seen.

    One-sided and exact (Clopper and Pearson 1934): the share at which so few would be seen in 5 % of the cases. For
    none of n it is about 3 / n.
    """
    if count >= n:
        return 1.0
    low, high = count / n, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(count, n, middle) > 1 - CONFIDENCE else (low, middle)
    return high


def _at_most(count: int, n: int, share: float) -> float:
    """Return the probability that at most `count` of `n` occur, each with probability `share`."""
    ways = (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) for k in range(count + 1))
    return sum(exp(log_ways + k * log(share) + (n - k) * log1p(-share)) for k, log_ways in enumerate(ways))
