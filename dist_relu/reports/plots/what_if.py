"""What changes of training do to its score, beside what gradients take on a wire then."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from dist_relu.reports.plots.style import COLOURS, GREY, PLAIN, Form, as_it_is, draw, plain_ticks

_LETTERS = 22
"""Of a line of a name."""

_NAME_POINTS = 8


@dataclass(frozen=True)
class Change:
    """A change, with the scores of its runs, and the megabytes of a group's gradients in an epoch."""

    name: str
    scores: Sequence[float]
    megabytes: float


def draw_what_if(changes: Sequence[Change], path: Path, *, score: str, form: Form = PLAIN, about: str = "") -> None:
    """Two panels with a row for each change: the scores of its runs with their mean, and megabytes an epoch.

    changes: the first one is no change.  score: what it is called.
    """
    rows = range(len(changes))

    def paint(scores: Any, bytes_: Any) -> None:
        for row, change in enumerate(changes):
            finite = [one for one in change.scores if isfinite(one)]
            scores.plot(finite, [row] * len(finite), "o", color=COLOURS[0], alpha=0.5)
            if finite:
                scores.plot(sum(finite) / len(finite), row, "|", color=COLOURS[1], markersize=16, markeredgewidth=2)
        first = [one for one in changes[0].scores if isfinite(one)]
        if first:
            scores.axvline(sum(first) / len(first), color=GREY, linestyle="--")
        bytes_.plot([change.megabytes for change in changes], rows, "o", color=COLOURS[0])
        bytes_.set_xscale("log")
        if sent := [change.megabytes for change in changes if change.megabytes > 0]:
            plain_ticks(bytes_.xaxis, np.array(sent), most=3)
        scores.set(title=score)
        bytes_.set(title="MB an epoch")
        for axes in (scores, bytes_):
            is_first = axes.get_subplotspec().is_first_col()
            names = [_wrapped(change.name) if is_first else "" for change in changes]
            axes.set_yticks(rows, names, fontsize=_NAME_POINTS)
            axes.set_ylim(len(changes) - 0.5, -0.5)

    what = score.partition(",")[0]
    note = (
        f"Dots: {what} on unseen samples, from different seeds; bars: means; dashed: without a change. "
        "MB: of a group's gradients."
    )
    draw(2, paint, path, panel_inches=(4.0, 1.2 + 0.4 * len(changes)), form=form, about=about, note=note)


def _wrapped(name: str) -> str:
    """A name in lines of its own, at most three of them."""
    return as_it_is("\n".join(textwrap.wrap(name, _LETTERS, max_lines=3, placeholder=" …")))
