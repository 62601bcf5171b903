"""What `tradeoff.measure` found as a table and as a picture, from which a user reads off what to serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras_matting.benchmarking.report import require_plots
from keras_matting.files import StrPath

_MARKERS = "osD^vP*X<>hp"


def markdown(report: Mapping[str, Any]) -> str:
    """Return the table: a row a point, the quickest first, bold where no other point of that set is better."""
    sets = list(report["sets"])
    figures = " | ".join(f"mIoU {name} | MAE {name}" for name in sets)
    lines = [
        f"{_measured_on(report)} Latency: the engine's own, one photo. Bold: nothing that is as quick is as accurate.",
        "",
        f"| model | size | engine | p50 ms | 95 % interval | {figures} |",
        "|---|---|---|" + "---:|" * (2 + 2 * len(sets)),
    ]
    lines += [_row(point, sets) for point in sorted(report["points"], key=lambda point: point["p50_ms"])]
    if report["left_out"]:
        lines.append("")
    lines += [f"- {_name(one)} {one['engine']} left out: {one['why'].rstrip('.')}." for one in report["left_out"]]
    return "\n".join(lines) + "\n"


def _measured_on(report: Mapping[str, Any]) -> str:
    sets = ", ".join(f"{name} ({count})" for name, count in report["sets"].items())
    return f"On {report['device']}; others used up to {report['cores_taken']:.1f} cores. Photos: {sets}."


def _row(point: Mapping[str, Any], sets: Sequence[str]) -> str:
    low, high = point["ci95_ms"]
    cells = [point["model"], _size(point), point["engine"], f"{point['p50_ms']:.1f}", f"{low:.1f} to {high:.1f}"]
    for name in sets:
        miou, mae = (point["accuracy"][name][figure] for figure in ("miou", "mae"))
        cells += [f"**{miou:.4f}**" if name in point["frontier"] else f"{miou:.4f}", f"{mae:.4f}"]
    return f"| {' | '.join(cells)} |"


def _size(point: Mapping[str, Any]) -> str:
    height, width = point["size"]
    return str(height) if height == width else f"{height}x{width}"


def _name(point: Mapping[str, Any]) -> str:
    return f"{point['model']} {_size(point)}"


def plot(report: Mapping[str, Any], path: StrPath) -> None:
    """Draw mIoU against latency, a panel a set, as the picture `path`, one of `report.PLOTS`.

    A colour is a model, a marker an engine. A line joins what is worth serving, each with its size.
    """
    require_plots(path)
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    points = report["points"]
    colours = {name: f"C{index % 10}" for index, name in enumerate(_distinct(points, "model"))}
    markers = {name: _MARKERS[index % len(_MARKERS)] for index, name in enumerate(sorted(_distinct(points, "engine")))}
    figure = Figure(figsize=(6.5 * len(report["sets"]), 5), layout="constrained")
    axes = figure.subplots(1, len(report["sets"]), squeeze=False)[0]
    for axis, name in zip(axes, report["sets"], strict=True):
        _draw(axis, points, name, colours, markers)
    lines = [Line2D([], [], color=colour, marker="o", linestyle="", label=name) for name, colour in colours.items()]
    lines += [Line2D([], [], color="0.4", marker=one, linestyle="", label=name) for name, one in markers.items()]
    figure.legend(handles=lines, loc="outside right center", fontsize="small")
    figure.suptitle(_measured_on(report), fontsize="small")
    figure.savefig(path)


def _draw(
    axis: Any, points: Sequence[Mapping[str, Any]], name: str, colours: Mapping[str, str], markers: Mapping[str, str]
) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    for point in points:
        is_best = name in point["frontier"]
        axis.plot(
            point["p50_ms"],
            point["accuracy"][name]["miou"],
            color=colours[point["model"]],
            marker=markers[point["engine"]],
            alpha=1.0 if is_best else 0.35,
        )
    best = sorted((point for point in points if name in point["frontier"]), key=lambda point: point["p50_ms"])
    places = [(point["p50_ms"], point["accuracy"][name]["miou"]) for point in best]
    axis.plot(*zip(*places, strict=True), color="0.6", linewidth=1, zorder=0)
    for point, place in zip(best, places, strict=True):
        axis.annotate(_size(point), place, xytext=(0, 6), textcoords="offset points", fontsize="x-small", ha="center")
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set(title=name, xlabel="milliseconds a photo (engine alone, median)", ylabel="mIoU")
    axis.grid(alpha=0.3, which="both")


def _distinct(points: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(point[key] for point in points))
