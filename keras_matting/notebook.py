"""What the notebooks show with: rows of pictures, tables, bars. Needs the `notebooks` extra."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from IPython.display import Markdown, display

Row: TypeAlias = Mapping[str, npt.NDArray[Any]] | Sequence[npt.NDArray[Any]]
_PAGE_INCHES = 10.0
_TRANSPARENT = "lightblue"


def show(*rows: Row, labels: Sequence[str] = (), height: float = 3.4, title: str = "") -> None:
    """Show rows of pictures, as `figure_of` draws them."""
    display(figure_of(*rows, labels=labels, height=height, title=title))


def figure_of(*rows: Row, labels: Sequence[str] = (), height: float = 3.4, title: str = "") -> Any:
    """Return a matplotlib figure of rows of pictures, each {title: picture}, or pictures alone.

    Pictures are grey (H, W), RGB (H, W, 3) or RGBA (H, W, 4), uint8 or floats in [0, 1]; what is transparent or NaN
    looks light blue. `labels` stand left of the rows, one each, `title` above them. `height` of a row is in inches, of
    which the page is ten wide. Raises `ValueError` where there are labels, and not one for each row.
    """
    columns = max(map(len, rows))
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(_PAGE_INCHES, height * len(rows)), layout="constrained", squeeze=False
    )
    figure.suptitle(title)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], facecolor=_TRANSPARENT)
    for row, drawn_on in zip(rows, axes, strict=True):
        titled = list(row.items()) if isinstance(row, Mapping) else [("", picture) for picture in row]
        for axis, (name, picture) in zip(drawn_on, titled, strict=False):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=255 if picture.dtype == np.uint8 else 1)
            axis.set_title(name)
        for axis in drawn_on[len(titled) :]:
            axis.set_axis_off()
    for label, (first, *_) in zip(labels, axes, strict=bool(labels)):
        first.set_ylabel(label)
    plt.close(figure)  # or the notebook would show it once more
    return figure


def bars(axis: Any, values: Mapping[str, float], colours: Mapping[str, str] | None = None, digits: int = 0) -> None:
    """Draw horizontal bars on a matplotlib axis, the shortest above, each with its value at its end.

    `colours`: a colour for each name, by default one for all. `digits` are those after the point.
    """
    names = sorted(values, key=lambda name: -values[name])
    colours = dict.fromkeys(names, "tab:blue") | dict(colours or {})
    drawn = axis.barh(names, [values[name] for name in names], color=[colours[name] for name in names])
    axis.bar_label(drawn, fmt=f"%.{digits}f", padding=3)
    axis.margins(x=0.12)  # room for the longest one's value


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> Markdown:
    """Return a Markdown table for a notebook to show; a sign of columns within a cell is kept apart from them."""
    lines = [header, ["---"] * len(header), *rows]
    cells = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return Markdown("\n".join(f"| {' | '.join(line)} |" for line in cells))
