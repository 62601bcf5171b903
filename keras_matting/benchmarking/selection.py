"""Which engine to serve: a gate on accuracy first, then the objective, ties broken by what else costs."""

from dataclasses import asdict, dataclass

from keras_matting.errors import UsageError

OBJECTIVES = ("latency", "throughput")
ERROR_DIGITS = 5  # below, two engines differ by the order in which float32 adds up, and neither is better


@dataclass(frozen=True)
class Gate:
    """The largest mean errors against Keras in float32 that a served engine may have, for mattes in [0, 1]."""

    mae: float = 0.005
    worst_photo_mae: float = 0.02


def select(results, objective, gate=Gate()):
    """Return the verdict over `results`, each {"engine", "error", "speed" (one for each batch), "peak_memory_mb", ...}.

    "latency" takes the lowest median at the smallest batch, "throughput" the most images a second at any. Engines whose
    95 % intervals overlap the best one's are tied, and the tie goes to the lowest MAE (to five digits), then memory,
    then load time.
    Returns {"engine" (None if none passes), "reason", "objective", "gate", "refused": {engine: why}}.
    """
    if objective not in OBJECTIVES:
        raise UsageError(f"Expected an objective out of {', '.join(OBJECTIVES)}; received {objective!r}.")
    refused = {result["engine"]: why for result in results if (why := refusal(result["error"], gate))}
    passed = [(_score(result, objective), result) for result in results if result["engine"] not in refused]
    verdict = {"engine": None, "objective": objective, "gate": asdict(gate), "refused": refused}
    if not passed:
        return {**verdict, "reason": "No engine passed the gate."}
    best = min(passed, key=lambda pair: pair[0]["ms_per_image"])
    tied = [pair for pair in passed if pair[0]["low"] <= best[0]["high"]]
    _, winner = min(tied, key=lambda pair: _costs(pair[1]))
    return {**verdict, "engine": winner["engine"], "reason": _reason(winner, best[1], tied, objective)}


def refusal(error, gate):
    """Return why the gate refuses an engine's `error`, or None."""
    if not error["finite"]:
        return "its output has NaN or infinity"
    for key, limit in asdict(gate).items():
        if error[key] > limit:
            return f"{key.replace('_', ' ')} {error[key]:.4f} is above {limit}"
    return None


def _score(result, objective):
    """Return the milliseconds an image takes, with its interval, at the batch that the objective looks at."""
    if objective == "latency":
        speed = min(result["speed"], key=lambda speed: speed["batch"])
    else:
        speed = max(result["speed"], key=lambda speed: speed["images_per_s"])
    low, high = speed["ci95_ms"]
    return {
        key: value / speed["batch"] for key, value in (("ms_per_image", speed["p50_ms"]), ("low", low), ("high", high))
    }


def _costs(result):
    return round(result["error"]["mae"], ERROR_DIGITS), result["peak_memory_mb"], result["load_s"]


def _reason(winner, fastest, tied, objective):
    if len(tied) == 1:
        return (
            f"{winner['engine']} has the best {objective} of those that pass the gate; its interval overlaps no other."
        )
    names = ", ".join(result["engine"] for _, result in tied)
    return (
        f"{names} are tied for {objective} (the fastest median is {fastest['engine']}'s; the 95 % intervals overlap); "
        f"{winner['engine']} has the lowest error (to 1e-5), then memory, then load time."
    )
