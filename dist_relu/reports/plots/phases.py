"""Where the time of traced steps went: on every worker, on the critical path, and by layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dist_relu.reports.plots.style import PLAIN, Form, draw, legend_below, sentences, short, shown_of, spread_out
from dist_relu.run.tracing.summary import Phases

_MOST_BARS = 16
_BAR_INCHES = 0.22
_VISIBLE = 0.004
"""The share of a bar from which on a part of it is drawn."""

_PARTS = (
    ("gather", ("gather",), "#56b4e9", ""),
    ("forward and loss", ("forward", "loss"), "#0072b2", ""),
    ("backward", ("backward",), "#009e73", ""),
    ("passes", ("pass",), "#7fb8d8", ""),
    ("sum", ("add", "sum"), "#cc79a7", ""),
    ("update", ("update",), "#e69f00", ""),
    ("wait for workers", ("wait",), "#ffffff", "////"),
    ("wait for nodes", ("exchange",), "#d55e00", "...."),
    ("between steps", ("between",), "#bbbbbb", ""),
)
"""What is drawn as one, of which phases, with colour and hatch: waits are hatched."""


def draw_phases(phases: Phases, path: Path, *, form: Form = PLAIN, about: str = "") -> None:
    """A bar for each worker and one for the critical path, cut into phases, and the layers where they are told.

    about: the title, if the form has none.
    """
    workers = spread_out(phases.workers, _MOST_BARS)
    names = [f"worker {worker.rank}" for worker in workers]
    bars = [worker.phases for worker in workers]
    if len(phases.workers) > 1:
        names, bars = [*names, "critical path"], [*bars, phases.critical]

    def paint(times: Any, *rest: Any) -> None:
        _paint_bars(times, names, bars, 1e3 / phases.num_steps)
        times.set(title="workers", xlabel="ms a step")
        for axes in rest:
            _paint_layers(axes, phases)
        legend_below(times)

    num_layers = min(len(phases.layers), _MOST_BARS)
    height = 1.4 + _BAR_INCHES * max(len(bars), num_layers, 3)
    note = sentences(
        f"Means of {phases.num_steps:,} steps." + (" Layers: all workers together." if num_layers else ""),
        shown_of(len(workers), len(phases.workers), "workers"),
    )
    panels = 2 if num_layers else 1
    inches = (4.0 if panels == 2 else 6.0), height
    draw(panels, paint, path, panel_inches=inches, form=form, about=about or _title(phases), note=note)


def _paint_bars(axes: Any, names: Sequence[str], bars: Sequence[dict[str, float]], scale: float) -> None:
    left = [0.0] * len(bars)
    for name, parts, colour, hatch in _PARTS:
        lengths = [scale * sum(bar.get(part, 0.0) for part in parts) for bar in bars]
        if any(length > _VISIBLE * scale * sum(bar.values()) for length, bar in zip(lengths, bars, strict=True)):
            axes.barh(
                range(len(bars)),
                lengths,
                left=left,
                color=colour,
                hatch=hatch,
                edgecolor="#444444",
                linewidth=0.4,
                label=name,
                height=0.75,
            )
        left = [begin + length for begin, length in zip(left, lengths, strict=True)]
    axes.set_yticks(range(len(bars)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")


def _paint_layers(axes: Any, phases: Phases) -> None:
    layers = spread_out(list(phases.layers.items()), _MOST_BARS)
    bars = [{"forward": forward, "backward": backward} for _, (forward, backward) in layers]
    _paint_bars(axes, [short(name) for name, _ in layers], bars, 1e3 / phases.num_steps)
    axes.set(title="layers", xlabel="ms a step")


def _title(phases: Phases) -> str:
    median_ms, mean_ms = phases.step_seconds * 1e3, phases.mean_step_seconds * 1e3
    return f"{phases.steps}: {median_ms:.3g} ms each in the median, {mean_ms:.3g} ms in the mean"
