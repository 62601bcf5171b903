"""Which engine to serve: a gate on accuracy first, then the objective; among equals what else costs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from keras_matting.arrays import Float64
from keras_matting.benchmarking.comparison import MARGIN, compare, fastest, upper_bound
from keras_matting.engines.lowered import GATE_MAE, GATE_WORST_PHOTO_MAE
from keras_matting.errors import UsageError

OBJECTIVES = ("latency", "throughput")
# What costs among equals, in this order: the key of a result, what to call it, and the ratio up to which two are alike.
# Memory repeats within a few percent; load time is measured once, and depends on what the disk and others did then.
_COSTS = (("peak_memory_mb", "memory", 1.05), ("load_s", "load time", 1.5))
ERROR_DIGITS = 5  # below, two engines differ by the order in which float32 adds up, and neither is better


@dataclass(frozen=True)
class Gate:
    """The largest mean errors against Keras in float32 that a served engine may have, for mattes in [0, 1].

    `worst_photo_mae` is a bound on each photo. `max_share`, where given, bounds the share of photos to come that may be
    above it: its 95 % upper confidence bound, which depends on how many were measured.
    """

    mae: float = GATE_MAE
    worst_photo_mae: float = GATE_WORST_PHOTO_MAE
    max_share: float | None = None


def select(
    results: Sequence[Mapping[str, Any]], objective: str, gate: Gate = Gate(), margin: float = MARGIN
) -> dict[str, Any]:
    """Return the verdict over `results`, each {"engine", "error", "speed" (one for each batch), "peak_memory_mb", ...}.

    "latency" looks at the smallest batch, "throughput" at each engine's best. Among the fastest engine and those shown
    to be as fast within `margin` (`comparison.compare`), the least memory wins, then the least load time, then error.
    Returns {"engine" (None if none passes), "reason", "certain", "open", "comparisons", "objective", "gate",
    "equivalence", "refused": {engine: why}, "photos": {engine: how many were above the worst photo's bound}}. Not
    certain is a verdict where an engine of "open" would have won, were it shown to be as fast as the fastest.
    """
    if objective not in OBJECTIVES:
        raise UsageError(f"Expected an objective out of {', '.join(OBJECTIVES)}; received {objective!r}.")
    refused = {result["engine"]: why for result in results if (why := refusal(result["error"], gate))}
    verdict = {"engine": None, "objective": objective, "gate": asdict(gate), "equivalence": margin, "refused": refused}
    verdict["photos"] = {result["engine"]: photos_above(result["error"], gate) for result in results}
    passed = {result["engine"]: result for result in results if result["engine"] not in refused}
    if not passed:
        return {**verdict, "reason": "No engine passed the gate.", "certain": True, "open": [], "comparisons": {}}
    speeds = {name: _deciding(result["speed"], objective) for name, result in passed.items()}
    best, compared = compare({name: _ms_per_image(speed) for name, speed in speeds.items()}, margin)
    comparisons = {name: compared[name] | {"batch": speeds[name]["batch"]} for name in passed}
    by_state = {state: [passed[name] for name in passed if compared[name]["state"] == state] for state in _STATES}
    equal = by_state["fastest"] + by_state["equal"]
    winner, _ = _cheapest(equal)
    rivals = [result["engine"] for result in by_state["undecided"] if _cheapest([*equal, result])[0] is result]
    reason = _reason(equal, by_state["slower"] + by_state["undecided"], comparisons, objective, margin)
    if rivals:
        reason += f" Not certain: {_listed(rivals, comparisons, best)}; neither slower nor equal was shown."
    fields = {"reason": reason, "certain": not rivals, "open": rivals, "comparisons": comparisons}
    return {**verdict, "engine": winner["engine"], **fields}


_STATES = ("fastest", "equal", "slower", "undecided")


def refusal(error: Mapping[str, Any], gate: Gate) -> str | None:
    """Return why the gate refuses an engine's `error`, or None."""
    if not error["finite"]:
        return "its output has NaN or infinity"
    for key, limit in (("mae", gate.mae), ("worst_photo_mae", gate.worst_photo_mae)):
        if error[key] > limit:
            return f"{key.replace('_', ' ')} {error[key]:.4f} is above {limit}"
    seen = photos_above(error, gate)
    if gate.max_share is not None and seen["share_at_most"] > gate.max_share:
        return f"{described(seen)}, which is above {gate.max_share:.1%}"
    return None


def photos_above(error: Mapping[str, Any], gate: Gate) -> dict[str, Any]:
    """Return {"above", "photos", "limit", "share_at_most"}: how many photos are above the bound of the worst photo.

    `share_at_most`: the 95 % upper confidence bound of the share of such photos to come.
    """
    maes = error["photo_maes"]
    above = sum(mae is None or mae > gate.worst_photo_mae for mae in maes)
    bound = upper_bound(above, len(maes))
    return {"above": above, "photos": len(maes), "limit": gate.worst_photo_mae, "share_at_most": bound}


def described(seen: Mapping[str, Any]) -> str:
    """Return what `photos_above` found: "0 of 30 photos above 0.02: at most 9.5 % of such photos (95 %)"."""
    share = 100 * seen["share_at_most"]
    return f"{seen['above']} of {seen['photos']} photos above {seen['limit']}: at most {share:.1f} % of such (95 %)"


def _deciding(speeds: Sequence[Mapping[str, Any]], objective: str) -> Mapping[str, Any]:
    """Return the speed of the batch that the objective looks at."""
    if objective == "latency":
        return min(speeds, key=lambda speed: speed["batch"])
    by_batch = {speed["batch"]: speed for speed in speeds}
    return by_batch[fastest({batch: _ms_per_image(speed) for batch, speed in by_batch.items()})]


def _ms_per_image(speed: Mapping[str, Any]) -> Float64:
    return np.array([np.nan if ms is None else ms / speed["batch"] for ms in speed["rounds_ms"]])


def _cheapest(equal: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], str]:
    """Return (the result among engines of equal speed that costs least, by what it was chosen)."""
    left = equal
    for key, name, alike in _COSTS:
        least = min(result[key] for result in left)
        left = [result for result in left if result[key] <= alike * least]
        if len(left) == 1:
            return left[0], name
    return min(left, key=lambda result: round(result["error"]["mae"], ERROR_DIGITS)), "error"


def _reason(
    equal: Sequence[Mapping[str, Any]],
    others: Sequence[Mapping[str, Any]],
    comparisons: Mapping[str, Mapping[str, Any]],
    objective: str,
    margin: float,
) -> str:
    winner, cost = _cheapest(equal)
    engine = winner["engine"]
    if len(equal) > 1:
        names = ", ".join(result["engine"] for result in equal)
        return f"{names} are equal for {objective} within {margin:.0%}; {engine} has the least {cost}."
    if not others:
        return f"{engine} is the only one that passes the gate."
    following = min((result["engine"] for result in others), key=lambda name: comparisons[name]["ratio"])
    return (
        f"{engine} has the best {objective} of those that pass the gate; {_listed([following], comparisons, engine)}."
    )


def _listed(names: Sequence[str], comparisons: Mapping[str, Mapping[str, Any]], best: str) -> str:
    parts = []
    for name in names:
        low, high = comparisons[name]["ci95"]
        parts.append(f"{name} takes {comparisons[name]['ratio']:.2f} times as long ({low:.2f} to {high:.2f})")
    return ", ".join(parts) + f" as {best}"
