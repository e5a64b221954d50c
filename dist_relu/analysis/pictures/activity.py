"""How much of a network is active."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dist_relu.analysis.activation import LayerActivations
from dist_relu.analysis.style import COLOURS, GREY, draw, draw_course, legend_below, look, spread_out
from dist_relu.watching import PREACTIVATION_EDGES, EpochSummary, WatchedLayer, WatchedStep

_MAX_LABELS, _MAX_PANELS = 12, 3
_RESHAPING = "Reshape", "Flatten", "FromNCHW"
_BRIGHTEST = 0.995
"""Of all shares this part is told apart by colour; a few may be larger by far, as those of what is 0 at first."""


def draw_activations(layers: Sequence[LayerActivations], path: Path) -> None:
    """The share of zeros and of dead units in every layer, and mean and standard deviation."""

    def paint(shares: Any, sizes: Any) -> None:
        numbers = range(len(layers))
        zeros = [100 * layer.sparsity for layer in layers]
        dead = [100 * len(layer.dead) / layer.num_units for layer in layers]
        shares.bar([n - 0.2 for n in numbers], zeros, 0.4, label="zeros", color=COLOURS[0])
        shares.bar([n + 0.2 for n in numbers], dead, 0.4, label="dead units", color=COLOURS[1], hatch="///")
        shares.set(title="zeros and dead units", ylabel="share in %", ylim=(0, 100))
        legend_below(shares)
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


def draw_activations_over_time(steps: Sequence[WatchedStep], epochs: Sequence[EpochSummary], path: Path) -> None:
    """The share of zeros and of silent units in the watched steps of a run, and of dead units in its epochs.

    Of hidden layers; of many, some from the first to the last.
    """
    shown = spread_out(hidden_layers(steps))
    dead = [epoch.dead for epoch in epochs if epoch.dead is not None]

    def paint(sparsity: Any, silent: Any, dying: Any = None) -> None:
        when = [step.step for step in steps]
        for line, (number, layer) in enumerate(shown):
            seen = [step.layers[number] for step in steps]
            draw_course(sparsity, line, when, [100 * layer.sparsity for layer in seen], layer.name)
            draw_course(silent, line, when, [100 * layer.silent / layer.num_units for layer in seen], layer.name)
            if dying is not None:
                shares = [100 * len(units[layer.name]) / layer.num_units for units in dead]
                dying.plot(range(1, 1 + len(dead)), shares, markevery=max(len(dead) // 8, 1), **look(line))
        sparsity.set(title="zeros", xlabel="step", ylabel="share of activations in %", ylim=(0, 100))
        silent.set(title="units that are 0 for a whole batch", xlabel="step", ylabel="share of units in %")
        if dying is not None:
            dying.set(title="dead: 0 for a whole epoch", xlabel="epoch", ylabel="share of units in %")
            dying.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            dying.set_xlim(0.5, len(dead) + 0.5)
        for axes in filter(None, (silent, dying)):
            axes.set_ylim(0, max(axes.get_ylim()[1], 1))
        legend_below(sparsity)

    draw(3 if dead else 2, paint, path, panel_inches=(3.4, 3.3) if dead else (4.0, 3.3))


def draw_preactivations(steps: Sequence[WatchedStep], path: Path) -> None:
    """How what goes into activations is distributed, step by step: a column for each, on a scale of powers of two.

    Of the first, the middle and the last layer with an activation. Raises ValueError when nothing was seen of any.
    """
    shown = spread_out(layers_with_preactivations(steps), _MAX_PANELS)
    if not shown:
        raise ValueError("No layer of the run has an activation of one number; there are no pre-activations to draw.")
    middle = len(PREACTIVATION_EDGES) // 2
    ticks = {middle: "0"}
    for power in range(-6, 7, 3):
        place, name = PREACTIVATION_EDGES.index(2.0**power), str(Fraction(2) ** power)
        ticks |= {place: name, 2 * middle - place: f"−{name}"}

    def paint(*panels: Any) -> None:
        shares = [_shares(steps, number) for number, _ in shown]
        colours = {"cmap": "Blues", "vmin": 0, "vmax": np.quantile(shares, _BRIGHTEST)}
        extent = (steps[0].step, max(steps[-1].step, steps[0].step + 1), 0, len(PREACTIVATION_EDGES) - 1)
        for axes, (_, name), share in zip(panels, shown, shares, strict=True):
            place = {"aspect": "auto", "origin": "lower", "extent": extent, "interpolation": "nearest"}
            image = axes.imshow(share, **colours, **place)
            axes.axhline(middle, color=GREY, linewidth=0.8, linestyle="--")
            axes.set(title=f"into {name}", xlabel="step")
            axes.set_yticks(list(ticks), list(ticks.values()))
            axes.grid(visible=False)
        panels[0].set_ylabel("pre-activation")
        panels[-1].figure.colorbar(image, ax=list(panels), label="share of a batch in %", pad=0.01, extend="max")

    draw(len(shown), paint, path, panel_inches=(10.2 / max(len(shown), 2), 3.4))


def hidden_layers(steps: Sequence[WatchedStep]) -> list[tuple[int, WatchedLayer]]:
    """All layers but the last one and those that only reshape, with their numbers; as they were in the first step."""
    layers = list(enumerate(steps[0].layers))
    return [(n, layer) for n, layer in layers[:-1] if not layer.name.endswith(_RESHAPING)] or layers


def layers_with_preactivations(steps: Sequence[WatchedStep]) -> list[tuple[int, str]]:
    """Number and name of the layers of which the distribution of pre-activations was seen."""
    layers = enumerate(steps[0].layers if steps else [])
    return [(number, layer.name) for number, layer in layers if layer.preactivations is not None]


def _shares(steps: Sequence[WatchedStep], number: int) -> Any:
    """(bins, steps), in per cent of what was counted in a step."""
    counts = np.array([step.layers[number].preactivations for step in steps], np.float64).T
    return 100 * counts / np.maximum(counts.sum(axis=0), 1)
