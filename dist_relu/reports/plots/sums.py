"""How long sums over workers take, and how many bytes a second that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dist_relu.reports.plots.style import GREY, PLAIN, Form, draw, legend_below, look


@dataclass(frozen=True)
class SumCurves:
    """Sums over the same workers.

    where: which these are.  times_ms: by who adds.  bound_ms: what none of them can be faster than.
    """

    where: str
    sizes_bytes: Sequence[int]
    times_ms: Mapping[str, Sequence[float]]
    bound_ms: Sequence[float]


def draw_sums(groups: Sequence[SumCurves], path: Path, *, form: Form = PLAIN, about: str = "") -> None:
    """Two panels for each group of workers, over the size of a sum: its time, and its bytes a second."""
    names = list(dict.fromkeys(name for group in groups for name in group.times_ms))

    def paint(*panels: Any) -> None:
        for group, times, rates in zip(groups, panels[::2], panels[1::2], strict=True):
            sizes = [size / 1e6 for size in group.sizes_bytes]
            curves = [(name, group.times_ms[name], look(names.index(name))) for name in group.times_ms]
            for name, ms, style in [*curves, ("bound", group.bound_ms, {"color": GREY, "linestyle": "--"})]:
                times.plot(sizes, ms, label=name, **style)
                rates.plot(sizes, [size / one for size, one in zip(sizes, ms, strict=True)], label=name, **style)
            times.set(title=group.where, ylabel="ms")
            rates.set(title=group.where, ylabel="GB/s")
            for axes in (times, rates):
                axes.set(xscale="log", yscale="log", xlabel="size of the sum, MB")
                axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
                axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        legend_below(*panels)

    note = "Bound: the same bytes through memory, or over the wire, by all at once and with nothing else done."
    draw(2, paint, path, rows=len(groups), form=form, about=about, note=note)
