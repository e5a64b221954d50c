"""How much of a network is active."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dist_relu.analysis.activation import LayerActivations
from dist_relu.analysis.style import COLOURS, GREY, draw, draw_course
from dist_relu.watching import WatchedStep

_MAX_LABELS = 12


def draw_activations(layers: Sequence[LayerActivations], path: Path) -> None:
    """The share of zeros and of dead units in every layer, and mean and standard deviation."""

    def paint(shares: Any, sizes: Any) -> None:
        numbers = range(len(layers))
        zeros = [100 * layer.sparsity for layer in layers]
        dead = [100 * len(layer.dead) / layer.num_units for layer in layers]
        shares.bar([n - 0.2 for n in numbers], zeros, 0.4, label="zeros", color=COLOURS[0])
        shares.bar([n + 0.2 for n in numbers], dead, 0.4, label="dead units", color=COLOURS[1], hatch="///")
        shares.set(title="zeros and dead units", ylabel="share in %", ylim=(0, 100))
        shares.legend()
        means = [layer.mean for layer in layers]
        deviations = [layer.variance**0.5 for layer in layers]
        sizes.errorbar(numbers, means, deviations, fmt="o", color=COLOURS[0], capsize=3)
        sizes.axhline(0, color=GREY, linewidth=0.8)
        sizes.set(title="mean ± standard deviation", ylabel="activation")
        for axes in (shares, sizes):
            axes.grid(axis="x", visible=False)
            if len(layers) <= _MAX_LABELS:
                axes.set_xticks(numbers, [layer.name for layer in layers], rotation=35, ha="right")
            else:
                axes.set_xlabel("layer")

    draw(2, paint, path)


def draw_activations_over_time(steps: Sequence[WatchedStep], path: Path) -> None:
    """The share of zeros and of silent units of every layer in the watched steps of a run; without the last layer."""

    def paint(sparsity: Any, silent: Any) -> None:
        when = [step.step for step in steps]
        for number, layer in enumerate(steps[0].layers[:-1] or steps[0].layers):
            seen = [step.layers[number] for step in steps]
            draw_course(sparsity, number, when, [100 * layer.sparsity for layer in seen], layer.name)
            draw_course(silent, number, when, [100 * layer.silent / layer.num_units for layer in seen], layer.name)
        sparsity.set(title="zeros", xlabel="step", ylabel="share of activations in %")
        silent.set(title="units that are 0 for a whole batch", xlabel="step", ylabel="share of units in %")
        sparsity.set_ylim(0, 100)
        silent.set_ylim(bottom=0)
        sparsity.legend()

    draw(2, paint, path)
