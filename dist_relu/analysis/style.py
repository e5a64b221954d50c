"""How all pictures look: one palette that colour-blind people can tell apart, one size, one way into files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dist_relu.arrays import Array
from dist_relu.files import write_file

T = TypeVar("T")

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito (2008), the darker ones first; yellow can't be seen on white."""

GREY = "#888888"
"""What is not the point: samples, zero lines."""

MARKERS = "osD^vPX"

SUFFIXES = (".png", ".svg")

_SETTINGS: dict[str, Any] = {
    "figure.dpi": 150,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.08,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "svg.hashsalt": "dist_relu",  # the same picture is the same file
}

_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))

_PANEL_INCHES = 4.0, 3.2
_LETTERS_PER_INCH, _LETTERS_OF_A_LINE = 12, 7


def draw(
    panels: int,
    paint: Callable[..., None],
    path: Path,
    *,
    rows: int = 1,
    panel_inches: tuple[float, float] = _PANEL_INCHES,
) -> None:
    """Have paint(*axes) fill rows of panels, and write them; the suffix of `path` says in which form.

    panels: in each row.  panel_inches: width and height; a picture 10 inches wide reads well 1000 pixels wide.
    Raises ImportError without matplotlib, ValueError for another suffix, `WriteError`.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: expected a name that ends in {' or '.join(SUFFIXES)}.")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    width, height = panel_inches
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(width * panels, height * rows))
        paint(*figure.subplots(rows, panels, squeeze=False).reshape(-1))
        picture = BytesIO()
        figure.savefig(picture, format=path.suffix[1:], metadata=_NO_METADATA if path.suffix == ".svg" else None)
    write_file(path, picture.getbuffer())


def draw_course(axes: Any, number: int, steps: Sequence[int], values: Sequence[float], name: str) -> None:
    """The number-th course of a noisy quantity: its values, faint, and over them the mean of a few around each."""
    if _smoothing_width(values) > 1:
        axes.plot(steps, values, color=look(number)["color"], alpha=0.3, linewidth=0.8)
    axes.plot(steps, smooth(values), label=name, markevery=max(len(values) // 8, 1), **look(number))


def smooth(values: Sequence[float]) -> Array:
    """The mean of a few values around each, a twentieth of all."""
    width = _smoothing_width(values)
    padded = np.pad(np.asarray(values, float), (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.full(width, 1 / width), mode="valid")


def log_scale(*panels: Any) -> None:
    """A logarithmic y axis where there is anything above 0 to show."""
    for axes in panels:
        if any((np.asarray(line.get_ydata(), float) > 0).any() for line in axes.lines):
            axes.set_yscale("log")


def legend_below(axes: Any) -> None:
    """One legend for all panels, of what stands in `axes`, as wide as there is room."""
    handles, names = axes.get_legend_handles_labels()
    room = axes.figure.get_figwidth() * _LETTERS_PER_INCH
    columns = max(int(room / (max(map(len, names)) + _LETTERS_OF_A_LINE)), 1)
    axes.figure.legend(handles, names, loc="outside lower center", ncols=min(columns, len(names)))


def spread_out(items: Sequence[T], most: int = len(COLOURS)) -> list[T]:
    """All items, or of too many some, evenly from the first to the last."""
    places = np.unique(np.linspace(0, len(items) - 1, min(len(items), most)).round().astype(int))
    return [items[place] for place in places]


def _smoothing_width(values: Sequence[float]) -> int:
    return max(len(values) // 20, 1)


def look(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of the number-th line: they differ in more than colour."""
    round_ = number // len(COLOURS)
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": ("-", "--", ":", "-.")[round_ % 4],
    }
