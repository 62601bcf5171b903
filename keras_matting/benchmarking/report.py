"""A benchmark as a table and as a picture."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from keras_matting.benchmarking.load import described
from keras_matting.benchmarking.worker import BASELINES
from keras_matting.errors import UsageError
from keras_matting.files import StrPath

PLOTS = (".png", ".svg", ".pdf")


def markdown(report: Mapping[str, Any]) -> str:
    """Return the report as Markdown: one row an engine and batch, then the verdict, the refused and the skipped.

    "against the fastest" is `comparison.compare`'s ratio and interval; the bound is `selection.photos_above`'s.
    """
    verdict = report["verdict"]
    with_gpu = any(result.get("peak_gpu_memory_mb") is not None for result in report["results"])
    measured_on = f"{report['model']} on {report['fingerprint']['device']}; photos: {report['photos']}."
    lines = [
        f"{measured_on} {described(report['load'])}",
        "",
        "| engine | batch | images/s | p50 ms | 95 % interval | against the fastest | p90 | p99 | CV | n | MAE "
        f"| worst photo | above {verdict['gate']['worst_photo_mae']} (95 % bound) | band MAE | max "
        "| runs as | load s | memory MB | file MB |" + " GPU MB |" * with_gpu,
        "|---|" + "---:|" * 14 + "---|" + "---:|" * (3 + with_gpu),
    ]
    for result in sorted(report["results"], key=lambda result: result["speed"][0]["p50_ms"]):
        lines += [_row(result, speed, verdict, with_gpu) for speed in result["speed"]]
    lines += ["", f"**{verdict['engine'] or 'No engine'}** ({verdict['objective']}): {verdict['reason']}"]
    lines += [f"- {engine} refused: {why}." for engine, why in verdict["refused"].items()]
    lines += [f"- {engine} not measured: {why}" for engine, why in report["skipped"].items()]
    return "\n".join(lines) + "\n"


def _row(result: Mapping[str, Any], speed: Mapping[str, Any], verdict: Mapping[str, Any], with_gpu: bool) -> str:
    error, (low, high) = result["error"], speed["ci95_ms"]
    name = f"*{result['engine']}*" if result["engine"] in BASELINES else result["engine"]
    cells = (
        name,
        speed["batch"],
        f"{speed['images_per_s']:.2f}",
        f"{speed['p50_ms']:.1f}",
        f"{low:.1f} to {high:.1f}",
        _times(verdict["comparisons"].get(result["engine"]), speed["batch"]),
        f"{speed['p90_ms']:.1f}",
        f"{speed['p99_ms']:.1f}",
        f"{speed['cv']:.1%}",
        speed["n"],
        *map(_error, (error["mae"], error["worst_photo_mae"])),
        _above(verdict["photos"].get(result["engine"])),
        *map(_error, (error.get("band_mae"), error["max"])),
        f"{result['precision']}: {result['coverage']}",
        f"{result['load_s']:.1f}",
        f"{result['peak_memory_mb']:.0f}",
        f"{result['file_mb']:.1f}",
        *([_megabytes(result.get("peak_gpu_memory_mb"))] if with_gpu else []),
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def _above(seen: Mapping[str, Any] | None) -> str:
    return "-" if seen is None else f"{seen['above']} of {seen['photos']}: at most {seen['share_at_most']:.1%}"


def _times(compared: Mapping[str, Any] | None, batch: int) -> str:
    """Return how many times as long as the fastest it takes, at the batch that the objective looks at."""
    if compared is None or compared["batch"] != batch:
        return "-"
    if compared["state"] == "fastest":
        return "1"
    low, high = compared["ci95"]
    return f"{compared['ratio']:.2f} ({low:.2f} to {high:.2f}), {compared['state']}"


def _label(engine: str, comparisons: Mapping[str, Mapping[str, Any]]) -> str:
    return f"{engine}\n{_times(comparisons[engine], comparisons[engine]['batch'])}" if engine in comparisons else engine


def _megabytes(value: float | None) -> str:
    return "-" if value is None else str(value)


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def require_plots(path: StrPath) -> None:
    """Raise `UsageError` unless `plot` can draw a file of that name."""
    if find_spec("matplotlib") is None:
        raise UsageError("Plots need matplotlib: pip install matplotlib, or leave --plot out.")
    if Path(path).suffix.lower() not in PLOTS:
        raise UsageError(f"Expected a plot as {', '.join(PLOTS)}; received {path}.")


def plot(report: Mapping[str, Any], path: StrPath) -> None:
    """Draw images per second by engine and batch, with intervals, as the picture `path`, one of `PLOTS`.

    Under each engine's name stands its time against the fastest's in the same rounds.
    """
    require_plots(path)
    from matplotlib.figure import Figure

    results = sorted(report["results"], key=lambda result: result["speed"][0]["images_per_s"])
    batches = [speed["batch"] for speed in results[0]["speed"]]
    figure = Figure(figsize=(9, 1.2 + 0.55 * len(results)), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(batches)
    for index, batch in enumerate(batches):
        speeds = [result["speed"][index] for result in results]
        values = [speed["images_per_s"] for speed in speeds]
        ends = [[batch / bound * 1000 for bound in speed["ci95_ms"]] for speed in speeds]
        whiskers = [[max(0, v - high) for v, (_, high) in zip(values, ends, strict=True)]]
        whiskers += [[max(0, low - v) for v, (low, _) in zip(values, ends, strict=True)]]
        rows = [row + index * height for row in range(len(results))]
        axes.barh(rows, values, height, xerr=whiskers, label=f"batch {batch}")
    labels = [_label(result["engine"], report["verdict"]["comparisons"]) for result in results]
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(results))], labels)
    axes.set_xlabel("images per second (median of rounds, 95 % interval)")
    title = f"{report['model']} on {report['fingerprint']['device']}"
    axes.set_title(f"{title}\n{described(report['load'])}", fontsize="medium")
    axes.legend()
    figure.savefig(path)
