"""What a list of latencies, and a pair of outputs, amount to."""

import numpy as np

from keras_matting.refine import trimap_of

CONFIDENCE = 0.95
_RESAMPLES = 2000


def speed(rounds, batch):
    """Return the statistics of latencies in milliseconds, given as one list a round.

    The interval is a bootstrap over rounds, since calls within a round share the machine's mood: rounds are resampled,
    and the median of their medians taken. CV is the rounds' standard deviation over their mean.
    """
    calls = np.concatenate([np.asarray(calls) for calls in rounds])
    medians = np.array([np.median(calls) for calls in rounds])
    random = np.random.default_rng(0)
    samples = np.median(random.choice(medians, (_RESAMPLES, len(medians))), axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    p50 = float(np.median(medians))
    return {
        "batch": batch,
        "p50_ms": p50,
        "p90_ms": float(np.quantile(calls, 0.9)),
        "p99_ms": float(np.quantile(calls, 0.99)),
        "ci95_ms": [float(low), float(high)],
        "cv": float(medians.std() / medians.mean()),
        "n": len(calls),
        "rounds": len(rounds),
        "images_per_s": batch / p50 * 1000,
    }


def error(outputs, reference):
    """Return how far an engine's outputs (N, ...) are from Keras's in float32, over photos.

    For mattes also over the band where Keras itself is uncertain: there differences are seen.
    """
    difference = np.abs(outputs.astype(np.float64) - reference)
    finite = bool(np.isfinite(outputs).all())
    per_photo = difference.reshape(len(difference), -1).mean(axis=1)
    result = {"finite": finite, "mae": _number(per_photo.mean()), "worst_photo_mae": _number(per_photo.max())}
    result["max"] = _number(difference.max())
    if reference.ndim == 4 and reference.shape[-1] == 1:
        band = np.stack([trimap_of(matte[..., 0]) == 0.5 for matte in reference])
        result["band_mae"] = _number(difference[..., 0][band].mean()) if band.any() else 0.0
    return result


def _number(value):
    """Return a float that JSON can hold: None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None
