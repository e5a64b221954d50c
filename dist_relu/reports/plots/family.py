"""ReLU beside a linear function, and its whole family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dist_relu import activations
from dist_relu.analysis.examples import CurveFit
from dist_relu.core.arrays import Array
from dist_relu.reports.plots.style import (
    COLOURS,
    GREY,
    PLAIN,
    Form,
    draw,
    draw_course,
    legend_below,
    look,
    smoothing_note,
)

FAMILY: dict[str, dict[str, float]] = {
    "relu": {},
    "leaky_relu": {"negative_slope": 0.1},
    "prelu": {"weight": 0.25},
    "rrelu": {},
    "relu6": {},
    "threshold": {"threshold": 1.0, "value": -1.0},
    "squared_relu": {},
    "elu": {},
    "selu": {},
    "celu": {"alpha": 0.5},
    "gelu": {},
    "silu": {},
    "mish": {},
    "softplus": {},
    "hardswish": {},
    "hardsigmoid": {},
    "hardtanh": {},
    "sigmoid": {},
    "tanh": {},
}
"""The functions of one number, with the arguments with which their shape is plain to see."""

_COLUMNS = 5


def draw_family(path: Path, *, form: Form = PLAIN) -> None:
    """Every activation of one number in `dist_relu.activations`, with its derivative."""

    def paint(*panels: Any) -> None:
        for axes, (name, arguments) in zip(panels, FAMILY.items(), strict=False):
            top = 8 if name == "relu6" else 4
            x = np.linspace(-4, top, 1601)
            _lines(axes, x, *activations.value_and_derivative(name, x, **arguments))
            told = ", ".join(f"{argument}={value:g}" for argument, value in arguments.items())
            axes.set_title(f"{name}\n{told}" if told else name)
            step = top // 4
            axes.set(xlim=(-4, top), ylim=(-2, top - 0.9), xticks=range(-4, top + 1, 2 * step))
            axes.set_yticks(range(-2, top, step))
        for axes in panels[len(FAMILY) :]:
            axes.axis("off")
            axes.legend(*panels[0].get_legend_handles_labels(), loc="center", title="of one number x")

    draw(_COLUMNS, paint, path, rows=-(-len(FAMILY) // _COLUMNS), panel_inches=(2.0, 1.85), form=form)


def draw_relu(fit: CurveFit, path: Path, *, form: Form = PLAIN) -> None:
    """ReLU and its derivative, a curve fitted with and without it, and the loss of both while they learned."""
    x = np.linspace(-2, 2, 801)

    def paint(function: Any, curve: Any, loss: Any) -> None:
        _lines(function, x, *activations.value_and_derivative("relu", x), of="ReLU: y = max(x, 0)")
        function.plot(x, x, color=COLOURS[-1], linestyle=":", label="linear: y = x")
        function.set(title="ReLU bends", xlabel="x", ylabel="y")
        curve.plot(fit.x, fit.y, ".", color=GREY, markersize=3, label="samples")
        for number, (name, outputs) in enumerate(fit.outputs.items()):
            line = {**look(1 - number), "marker": None}
            curve.plot(fit.grid, outputs, label=name, **line)
            draw_course(loss, 1 - number, range(len(fit.losses[name])), fit.losses[name].tolist(), name)
        curve.set(title="a network of three layers", xlabel="x", ylabel="y")
        legend_below(function, curve, loss)
        loss.set(title="while it learns", xlabel="step", ylabel="mean squared error", yscale="log")

    note = smoothing_note(max(map(len, fit.losses.values())), "step")
    draw(3, paint, path, panel_inches=(3.4, 3.2), form=form, note=note)


def _lines(axes: Any, x: Array, y: Array, slope: Array, of: str = "value") -> None:
    axes.axhline(0, color=GREY, linewidth=0.6)
    axes.axvline(0, color=GREY, linewidth=0.6)
    axes.plot(x, _cut(y), color=COLOURS[0], label=of)
    axes.plot(x, _cut(slope), color=COLOURS[1], linestyle="--", label="derivative")


def _cut(y: Array) -> Array:
    """Without a point where the function jumps, so that no line leads across."""
    return np.where(np.append(np.abs(np.diff(y)) > 0.05, False), np.nan, y)
