"""What ever higher learning rates do to the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dist_relu.reports.plots.style import COLOURS, GREY, PLAIN, Form, draw, legend_below
from dist_relu.run.learning_rate import LearningRateCurve


def draw_learning_rate(curve: LearningRateCurve, path: Path, *, form: Form = PLAIN, about: str = "") -> None:
    """The loss of each step over its learning rate, and the rate that is suggested."""

    def paint(axes: Any) -> None:
        axes.plot(curve.rates, curve.losses, color=GREY, linewidth=0.8, alpha=0.6, label="loss of a step")
        axes.plot(curve.rates, curve.smoothed, color=COLOURS[0], label="smoothed")
        axes.set(title="loss at rising learning rates", xlabel="learning rate", ylabel="mean loss of a batch")
        axes.set_xscale("log")
        if curve.suggestion is not None:
            label = f"falls fastest: {curve.suggestion:.2g}"
            axes.axvline(curve.suggestion, color=COLOURS[1], linestyle="--", label=label)
        lowest = curve.smoothed.index(min(curve.smoothed))
        low, high = min(curve.losses), max(curve.smoothed[: lowest + 1])  # how far it rises then is no matter
        margin = 0.2 * (high - low) or 0.2 * high or 1.0
        axes.set_ylim(low - margin / 2, high + margin)
        legend_below(axes)

    draw(1, paint, path, panel_inches=(5.6, 3.8), form=form, about=about)
