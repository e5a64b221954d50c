"""What changes of training do to its score, beside what an epoch takes then, and what gradients take on a wire."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from dist_relu.reports.plots.style import COLOURS, GREY, PLAIN, Form, as_it_is, draw, plain_ticks

_LETTERS = 22
"""Of a line of a name."""

_NAME_POINTS = 8


@dataclass(frozen=True)
class Change:
    """A change, with the scores of its runs, their seconds an epoch, and what a group's gradients then have of MB."""

    name: str
    scores: Sequence[float]
    epoch_seconds: Sequence[float]
    megabytes: float


def draw_what_if(changes: Sequence[Change], path: Path, *, score: str, form: Form = PLAIN, about: str = "") -> None:
    """Three panels with a row for each change: scores of its runs with their mean, times with their median, megabytes.

    changes: the first one is no change.  score: what it is called.
    """
    rows = range(len(changes))

    def paint(scores: Any, times: Any, bytes_: Any) -> None:
        _dots(scores, [[one for one in change.scores if isfinite(one)] for change in changes], mean)
        _dots(times, [change.epoch_seconds for change in changes], median)
        times.set_xlim(0, 1.1 * max(one for change in changes for one in change.epoch_seconds))
        bytes_.plot([change.megabytes for change in changes], rows, "o", color=COLOURS[0])
        bytes_.set_xscale("log")
        if sent := [change.megabytes for change in changes if change.megabytes > 0]:
            plain_ticks(bytes_.xaxis, np.array(sent), most=3)
        scores.set(title=score)
        times.set(title="s an epoch")
        bytes_.set(title="MB an epoch")
        for axes in (scores, times, bytes_):
            is_first = axes.get_subplotspec().is_first_col()
            names = [_wrapped(change.name) if is_first else "" for change in changes]
            axes.set_yticks(rows, names, fontsize=_NAME_POINTS)
            axes.set_ylim(len(changes) - 0.5, -0.5)

    what = score.partition(",")[0]
    note = (
        f"Dots: {what} on unseen samples, and time, from different seeds; bars: mean, and median; dashed: without a "
        "change. MB: of a group's gradients."
    )
    draw(3, paint, path, panel_inches=(4.0, 1.2 + 0.4 * len(changes)), form=form, about=about, note=note)


def _dots(axes: Any, values: Sequence[Sequence[float]], typical: Callable[[Sequence[float]], float]) -> None:
    """Draw the values of each row, with a bar at the typical one, and a line at that of the first row."""
    for row, each in enumerate(values):
        axes.plot(each, [row] * len(each), "o", color=COLOURS[0], alpha=0.5)
        if each:
            axes.plot(typical(each), row, "|", color=COLOURS[1], markersize=16, markeredgewidth=2)
    if values[0]:
        axes.axvline(typical(values[0]), color=GREY, linestyle="--")


def _wrapped(name: str) -> str:
    """A name in lines of its own, at most three of them."""
    return as_it_is("\n".join(textwrap.wrap(name, _LETTERS, max_lines=3, placeholder=" …")))
