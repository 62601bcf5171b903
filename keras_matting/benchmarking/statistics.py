"""What a list of latencies, and a pair of outputs, amount to."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_matting.arrays import Float32
from keras_matting.benchmarking.comparison import bootstrap
from keras_matting.photos.refine import trimap_of


def speed(rounds: Sequence[Sequence[float] | None], batch: int) -> dict[str, Any]:
    """Return the statistics of latencies in milliseconds, given as one list a round, None where it sat out.

    The interval is a bootstrap over rounds, since calls within a round share the machine's mood: rounds are resampled,
    and the median of their medians taken. CV is the rounds' standard deviation over their mean. `rounds_ms`: the median
    of each round, by which engines are compared.
    """
    rounds_ms = [None if calls is None else float(np.median(calls)) for calls in rounds]
    calls = np.concatenate([np.asarray(calls) for calls in rounds if calls is not None])
    medians = np.array([median for median in rounds_ms if median is not None])
    low, high = bootstrap(medians)
    p50 = float(np.median(medians))
    return {
        "batch": batch,
        "p50_ms": p50,
        "p90_ms": float(np.quantile(calls, 0.9)),
        "p99_ms": float(np.quantile(calls, 0.99)),
        "ci95_ms": [low, high],
        "cv": float(medians.std() / medians.mean()),
        "n": len(calls),
        "rounds": len(medians),
        "images_per_s": batch / p50 * 1000,
        "rounds_ms": rounds_ms,
    }


def error(outputs: Float32, reference: Float32) -> dict[str, Any]:
    """Return how far an engine's outputs (N, ...) are from Keras's in float32, over photos.

    For mattes also over the band where Keras itself is uncertain: there differences are seen. `photo_maes` has each
    photo's, None where it is no number.
    """
    difference = np.abs(outputs.astype(np.float64) - reference)
    finite = bool(np.isfinite(outputs).all())
    per_photo = difference.reshape(len(difference), -1).mean(axis=1)
    result: dict[str, Any] = {
        "finite": finite,
        "mae": _number(per_photo.mean()),
        "worst_photo_mae": _number(per_photo.max()),
    }
    result["max"] = _number(difference.max())
    result["photo_maes"] = [_number(mae) for mae in per_photo]
    if reference.ndim == 4 and reference.shape[-1] == 1:
        band = np.stack([trimap_of(matte[..., 0]) == 0.5 for matte in reference])
        result["band_mae"] = _number(difference[..., 0][band].mean()) if band.any() else 0.0
    return result


def _number(value: float | np.floating) -> float | None:
    """Return a float that JSON can hold: None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None
