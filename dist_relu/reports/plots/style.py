"""How all pictures look: one palette that colour-blind people can tell apart, one size, one way into files.

Whatever is written stays inside the picture, and no legend covers anything: legends stand below the panels, in as many
rows as they need, and the picture grows by them; what is too long is wrapped or shortened.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.files import write_file

T = TypeVar("T")

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito (2008), the darker ones first; yellow can't be seen on white."""

GREY = "#888888"
"""What is not the point: samples, zero lines."""

MARKERS = "osD^vPX"

SUFFIXES = (".png", ".svg", ".pdf")
EXPECTED_NAME = f"expected a name that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"

_SETTINGS: dict[str, Any] = {
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
    "pdf.fonttype": 42,  # publishers refuse the other one
    "svg.hashsalt": "dist_relu",  # the same picture is the same file
}

_NO_METADATA = {
    ".svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
    ".pdf": dict.fromkeys(("CreationDate", "Creator", "Producer")),
}

_PANEL_INCHES = 4.0, 3.2
_STACKED_INCHES = 4.0, 2.3
"""Where panels stand below one another for want of width, they are lower: four of them fit on a page with a legend."""
_LOWEST_INCHES = 1.0
"""Long words below stacked panels leave each of them at least so much of its height."""
_NARROWEST = 0.6
"""A panel is at least so much of its own width, so that its words have room; or there are fewer beside one another."""
_TITLE_POINTS, _LEGEND_POINTS, _NOTE_POINTS = 11, 10, 8.5
_LETTERS_PER_INCH = 14
"""About so many of 10 points; what comes of it is measured."""
_MARGIN_INCHES = 0.4
_HANDLE_INCHES = 0.6
"""The room that a line takes in a legend before its name."""
_LONGEST_NAME = 22
_MOST_TICKS = 12
_NOTE_COLOUR = "#595959"
_FEW = 60
"""Values of a course; fewer are shown as they are."""
_SHORT_RANGE = 30
"""Numbers that differ by a smaller factor are written as they are, not as powers of ten."""


@dataclass(frozen=True)
class Form:
    """What a picture is to be like.

    title: above it; None: what the picture knows of where its numbers are from.  width: in inches; the height follows.
    dpi: of a .png.
    """

    title: str | None = None
    width: float | None = None
    dpi: int = 150


PLAIN = Form()

COLUMN = Form(width=3.35)
"""For a column of a paper, 8.5 cm wide."""


def draw(
    panels: int,
    paint: Callable[..., None],
    path: Path,
    *,
    rows: int = 1,
    panel_inches: tuple[float, float] | None = None,
    form: Form = PLAIN,
    about: str = "",
    note: str = "",
) -> None:
    """Have paint(*axes) fill rows of panels, and write them; the suffix of `path` says in which form.

    panels: in each row, fewer where the form is too narrow for them.  panel_inches: width and height, if they are not
    the usual ones; a picture 10 inches wide reads well 1000 pixels wide.
    about: the title, if the form has none.  note: below, what a reader must know of lines and shades.
    Raises ImportError without matplotlib, ValueError for another suffix, `WriteError`.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: {EXPECTED_NAME}.")
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    usual_width = (panel_inches or _PANEL_INCHES)[0]
    width = form.width or panels * usual_width
    columns = min(max(int(width / (_NARROWEST * usual_width)), 1), panels)
    num_rows = -(-rows * panels // columns)
    panel_width, panel_height = panel_inches or (_PANEL_INCHES if columns == panels else _STACKED_INCHES)
    height = num_rows * panel_height * width / (columns * panel_width)
    picture = BytesIO()
    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # names may be in any script
        figure = Figure(figsize=(width, height), dpi=form.dpi)
        FigureCanvasAgg(figure)  # which can tell how large words are
        all_axes = figure.subplots(num_rows, columns, squeeze=False).reshape(-1)
        paint(*all_axes[: rows * panels])
        for axes in all_axes[rows * panels :]:
            axes.remove()
        _add_words(figure, about if form.title is None else form.title, note)
        if columns < panels:
            _heighten(figure, num_rows)
        figure.savefig(picture, format=path.suffix[1:], metadata=_NO_METADATA.get(path.suffix))
    write_file(path, picture.getbuffer())


def draw_course(axes: Any, number: int, steps: Sequence[int], values: Sequence[float], name: str) -> None:
    """The number-th course of a noisy quantity: its values, faint, and over them the mean of a few around each."""
    if smoothing_width(len(values)) > 1:
        axes.plot(steps, values, color=look(number)["color"], alpha=0.3, linewidth=0.8)
    axes.plot(steps, smooth(values), label=as_label(name), markevery=max(len(values) // 8, 1), **look(number))


def smooth(values: Sequence[float]) -> Array:
    """The mean of a few values around each, `smoothing_width` of them, fewer towards the ends.

    At the beginning, where courses are steep, it is as many before a value as after it; so the first one is itself. NaN
    and infinities don't count, and stay.
    """
    numbers = np.asarray(values, np.longdouble)  # so that a large one leaves the sums of small ones behind it exact
    finite = np.isfinite(numbers)
    places = np.arange(len(numbers))
    reach = np.minimum(smoothing_width(len(numbers)) // 2, places)
    sums, counts = (
        np.concatenate([[0], np.cumsum(terms)]) for terms in (np.where(finite, numbers, 0), finite.astype(int))
    )
    first, stop = places - reach, np.minimum(places + reach + 1, len(numbers))
    means = (sums[stop] - sums[first]) / np.maximum(counts[stop] - counts[first], 1)
    return np.where(finite & (reach > 0), means, numbers).astype(np.float64)


def smoothing_width(num_values: int) -> int:
    """How many values a point of a smooth line is the mean of: a twentieth of all, an odd number."""
    return num_values // 20 // 2 * 2 + 1 if num_values >= _FEW else 1


def smoothing_note(num_values: int, what: str = "watched step") -> str:
    """What a reader must know of `draw_course`; num_values: of the longest course.  what: each of them is."""
    width = smoothing_width(num_values)
    return f"Faint: each {what}; lines: means of up to {width} around it." if width > 1 else ""


def watched_note(steps: Sequence[int]) -> str:
    """Which steps of a run are shown, if not all.  steps: their numbers."""
    every = steps[1] - steps[0] if len(steps) > 1 else 1
    return f"One of {every} steps was watched." if every > 1 else ""


def log_scale(*panels: Any) -> None:
    """A logarithmic y axis where there is anything above 0 to show, with numbers that can be read."""
    for axes in panels:
        parts = [np.asarray(line.get_ydata(), float).reshape(-1) for line in axes.lines]
        values = np.concatenate([*parts, np.empty(0)])
        values = values[np.isfinite(values) & (values > 0)]
        if not len(values):
            continue
        axes.set_yscale("log")
        plain_ticks(axes.yaxis, values)


def plain_ticks(axis: Any, values: Array, most: int = 5) -> None:
    """Numbers that can be read along a logarithmic axis of values above 0, where powers of ten alone are too few.

    most: about so many steps from one number to the next.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    factor = values.max() / values.min()
    if factor >= _SHORT_RANGE:
        return
    few = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10]) if factor > 1 else FixedLocator([float(values[0])])
    axis.set_major_locator(few if factor < 2 * most else LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_below(*panels: Any) -> None:
    """One legend for all panels, of what stands in these, row by row, in as many columns as there is room for.

    The picture gets higher by it.
    """
    entries: dict[str, Any] = {}
    for axes in panels:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    figure = panels[0].figure
    room = figure.get_figwidth() - _MARGIN_INCHES
    names = [_fitted(figure, name, room - _HANDLE_INCHES, _LEGEND_POINTS) for name in entries]
    handles = list(entries.values())
    for num_rows in range(1, len(names) + 1):
        columns = -(-len(names) // num_rows)
        by_column = [i for column in range(columns) for i in range(column, len(names), columns)]
        legend = figure.legend(
            [handles[i] for i in by_column],
            [names[i] for i in by_column],
            loc="outside lower center",
            ncols=columns,
            fontsize=_LEGEND_POINTS,
        )
        if _size_of(figure, legend)[0] <= room or columns == 1:
            break
        legend.remove()


def legend_under(axes: Any) -> None:
    """A legend of one panel, below it: where panels show different things with the same colours."""
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles, map(as_it_is, names), loc="upper center", bbox_to_anchor=(0.5, -0.2))


def name_ticks(axes: Any, names: Sequence[str]) -> None:
    """Names along the x axis, at 0, 1, 2...; of many, one in a few."""
    places = range(0, len(names), -(-len(names) // _MOST_TICKS))
    axes.set_xticks(places, [short(names[place]) for place in places], rotation=35, ha="right", rotation_mode="anchor")


def short(name: str) -> str:
    """A name, or the beginning and the end of a long one."""
    half = (_LONGEST_NAME - 1) // 2
    return as_it_is(name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[-half:]}")


def as_it_is(text: str) -> str:
    """For matplotlib, which takes what stands between dollars as mathematics."""
    return text.replace("$", r"\$")


def as_label(name: str) -> str:
    """For matplotlib, which leaves names out of legends that begin with "_"; `legend_below` does the rest."""
    return f" {name}" if name.startswith("_") else name


def shown_of(num_shown: int, num: int, what: str) -> str:
    """A sentence of what was left out, if anything was."""
    return "" if num_shown == num else f"Shown: {num_shown} of {num} {what}, evenly from the first to the last."


def sentences(*parts: str) -> str:
    """One after the other, those that there are."""
    return " ".join(filter(None, parts))


def _add_words(figure: Any, title: str, note: str) -> None:
    """Title and note; the picture grows by them and by its legend, so that panels keep their size."""
    room = figure.get_figwidth() - _MARGIN_INCHES
    added = list(figure.legends)
    if title:
        added.append(figure.suptitle(_fitted(figure, title, room, _TITLE_POINTS), fontsize=_TITLE_POINTS))
    if note:
        note = _fitted(figure, note, room, _NOTE_POINTS)
        if figure.legends:
            figure.legends[0].set_title(note, {"size": _NOTE_POINTS})
            figure.legends[0].get_title().set(color=_NOTE_COLOUR, multialignment="center")
        else:
            added.append(figure.supxlabel(note, fontsize=_NOTE_POINTS, color=_NOTE_COLOUR))
    figure.set_figheight(figure.get_figheight() + sum(_size_of(figure, part)[1] for part in added))


def _heighten(figure: Any, num_rows: int) -> None:
    """Let the picture grow until its lowest panel has its height."""
    figure.draw_without_rendering()
    missing = _LOWEST_INCHES - min(_size_of(figure, axes)[1] for axes in figure.axes if axes.axison)
    if missing > 0:
        figure.set_figheight(figure.get_figheight() + num_rows * missing)


def _fitted(figure: Any, text: str, inches: float, points: float) -> str:
    """`text` as it is, in lines that are no longer than so many inches."""
    text = as_it_is(text)
    letters = int(max(inches * _LETTERS_PER_INCH * 10 / points, 1))
    while True:
        lines = "\n".join(textwrap.wrap(text, letters)) or text
        probe = figure.text(0, 0, lines, fontsize=points)
        width, _ = _size_of(figure, probe)
        probe.remove()
        if width <= inches or letters == 1:
            return lines
        letters = max(int(letters * min(inches / width, 0.95)), 1)


def _size_of(figure: Any, artist: Any) -> tuple[float, float]:
    """Width and height in inches."""
    box = artist.get_window_extent(figure.canvas.get_renderer())
    return box.width / figure.dpi, box.height / figure.dpi


def spread_out(items: Sequence[T], most: int = len(COLOURS)) -> list[T]:
    """All items, or of too many some, evenly from the first to the last."""
    places = np.unique(np.linspace(0, len(items) - 1, min(len(items), most)).round().astype(int))
    return [items[place] for place in places]


def look(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of the number-th line: they differ in more than colour."""
    round_ = number // len(COLOURS)
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": ("-", "--", ":", "-.")[round_ % 4],
    }
