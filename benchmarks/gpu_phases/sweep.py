"""Runners side by side: rounds in which each takes its turn in an order of chance, a record for each at the end."""

import random

import numpy as np

from gpu_phases.records import state

ROUND_MS = 150  # what one runner takes in one round, for each of its ways
FEWEST, MOST = 5, 200
_WAYS = ("host_ms", "device_ms", "graph_ms")


def sweep(runners, rounds, budget):
    """Return {name: figures} of runners by name: medians over all calls, and each round's median.

    What fails stays with its error while the others go on.
    """
    chance, order = random.Random(0), list(runners)
    figures = {name: {"clock": runners[name].clock, "rounds": {way: [] for way in _WAYS}} for name in order}
    for done in range(rounds):
        if done and not budget.is_left():
            break
        for name in chance.sample(order, len(order)):
            if "error" not in figures[name]:
                _round(runners[name], figures[name])
    for name in order:
        _summarise(figures[name])
    return figures


def _round(runner, figure):
    figure["state"] = state()
    try:
        for way in _WAYS:
            time = getattr(runner, way)
            if (trial := time(2)) is None:
                continue
            calls = int(np.clip(ROUND_MS / max(min(trial), 1e-3), FEWEST, MOST))
            figure["rounds"][way].append(time(calls))
    except Exception as error:  # one engine's failure is its own row
        figure["error"] = f"{type(error).__name__}: {error}"[:500]


def _summarise(figure):
    for way, rounds in list(figure["rounds"].items()):
        if rounds:
            calls = np.concatenate(rounds)
            figure[way] = {"median": float(np.median(calls)), "p95": float(np.percentile(calls, 95))}
        figure["rounds"][way] = [float(np.median(calls)) for calls in rounds]


def told_times(figure):
    """Return a figure's medians as a line."""
    ways = [f"{way} {figure[way]['median']:.3f}" for way in _WAYS if way in figure]
    return figure.get("error") or ", ".join(ways)
