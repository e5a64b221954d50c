"""How much of a network is active."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dist_relu.analysis.activation import LayerActivations
from dist_relu.core.arrays import Array
from dist_relu.engine.watch.records import PREACTIVATION_EDGES, EpochSummary, WatchedLayer, WatchedStep
from dist_relu.reports.plots.style import (
    COLOURS,
    GREY,
    PLAIN,
    Form,
    draw,
    draw_course,
    legend_below,
    look,
    name_ticks,
    sentences,
    short,
    shown_of,
    smoothing_note,
    spread_out,
    watched_note,
)

_MAX_PANELS, _COLUMNS = 6, 3
_RESHAPING = "Reshape", "Flatten", "FromNCHW"
_BRIGHTEST = 0.995
"""Of all densities this part is told apart by colour; a few may be larger by far, as those of what is 0 at first."""
_OUT_OF_VIEW = 0.005
"""Of what goes into an activation, the share at most that may lie beyond the axis."""
_FINEST = 1 / 32
"""Of the axis; narrower bins are put together, since a few samples tell nothing about them."""


def draw_activations(layers: Sequence[LayerActivations], path: Path, *, form: Form = PLAIN, about: str = "") -> None:
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
            name_ticks(axes, [layer.name for layer in layers])

    draw(2, paint, path, form=form, about=about, note="A unit is dead when it is 0 for every sample.")


def draw_activations_over_time(
    steps: Sequence[WatchedStep],
    epochs: Sequence[EpochSummary],
    path: Path,
    *,
    form: Form = PLAIN,
    about: str = "",
) -> None:
    """The share of zeros and of silent units in the watched steps of a run, and of dead units in its epochs.

    Of hidden layers; of many, some from the first to the last.
    """
    hidden = hidden_layers(steps)
    shown = spread_out(hidden)
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
        sparsity.set(title="zeros", xlabel="step", ylabel="share of outputs in %", ylim=(0, 100))
        silent.set(title="silent: 0 for all samples of a batch", xlabel="step", ylabel="share of units in %")
        if dying is not None:
            dying.set(title="dead: 0 in all steps of an epoch", xlabel="epoch", ylabel="share of units in %")
            dying.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            dying.set_xlim(0.5, len(dead) + 0.5)
        for axes in filter(None, (silent, dying)):
            axes.set_ylim(0, max(axes.get_ylim()[1], 1))
        legend_below(sparsity)

    num_panels = 3 if dead else 2
    note = sentences(
        shown_of(len(shown), len(hidden), "hidden layers"),
        watched_note([step.step for step in steps]),
        smoothing_note(len(steps)),
        "Dead units are counted over all steps and samples of an epoch." if dead else "",
    )
    draw(num_panels, paint, path, panel_inches=(3.5, 3.3), form=form, about=about, note=note)


def draw_preactivations(steps: Sequence[WatchedStep], path: Path, *, form: Form = PLAIN, about: str = "") -> None:
    """How what goes into activations is distributed, step by step: a column of densities for each.

    Of many layers with an activation, some from the first to the last. Raises ValueError when nothing was seen of any.
    """
    layers = layers_with_preactivations(steps)
    if not layers:
        raise ValueError("No layer of the run has an activation of one number; there are no pre-activations to draw.")
    shown = spread_out(layers, _MAX_PANELS)
    columns = min(len(shown), _COLUMNS)
    rows = -(-len(shown) // columns)
    when = [step.step for step in steps]
    times = [*when, when[-1] + (when[-1] - when[-2] if len(when) > 1 else 1)]

    def paint(*panels: Any) -> None:
        from matplotlib.colors import PowerNorm

        for axes in panels[len(shown) :]:
            axes.axis("off")
        for axes, (number, name) in zip(panels, shown, strict=False):
            limits, densities = densities_of([step.layers[number].preactivations or [] for step in steps])
            brightest = float(np.quantile(densities, _BRIGHTEST)) or 1.0
            image = axes.pcolormesh(times, limits, densities / brightest, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
            image.set_rasterized(True)
            axes.axhline(0, color=GREY, linewidth=0.8, linestyle="--")
            axes.set(title=f"into {short(name)}", xlabel="step", ylabel="pre-activation")
            axes.grid(visible=False)
        axes = list(panels[: len(shown)])
        axes[0].figure.colorbar(image, ax=axes, label="density, of the highest there", pad=0.01, extend="max")

    note = sentences(
        shown_of(len(shown), len(layers), "layers with an activation"),
        watched_note(when),
        "Density: the share of a step's pre-activations in a cell, divided by the cell's height.",
    )
    inches = 10.2 / max(columns, 2), 3.4 if rows == 1 else 2.9
    draw(columns, paint, path, rows=rows, panel_inches=inches, form=form, about=about, note=note)


def densities_of(counts: Sequence[Sequence[int]]) -> tuple[Array, Array]:
    """Where cells end, (cells + 1,), and how dense numbers lie in each, (cells, steps), in shares of a step's numbers.

    counts: of each step, in the bins between `PREACTIVATION_EDGES`. Cells reach as far as nearly all numbers do, and
    are bins, or several narrow ones together.
    """
    numbers = np.array(counts, np.float64).T
    edges = np.array(PREACTIVATION_EDGES)
    middle = len(edges) // 2
    of_all = numbers.sum(axis=1)
    magnitudes = of_all[middle:] + of_all[:middle][::-1]  # in the bins from 0 on
    beyond = 1 - np.cumsum(magnitudes) / max(magnitudes.sum(), 1)
    reach = min(int(np.argmax(beyond <= _OUT_OF_VIEW)) + 1, len(magnitudes) - 1)
    last = edges[middle + reach]
    kept = [
        place
        for place in range(middle - reach, middle + reach + 1)
        if edges[place] == 0 or abs(edges[place]) >= last * _FINEST
    ]
    cells = np.add.reduceat(numbers[: kept[-1]], kept[:-1], axis=0)
    limits = edges[kept]
    return limits, cells / np.diff(limits)[:, np.newaxis] / np.maximum(numbers.sum(axis=0), 1)


def hidden_layers(steps: Sequence[WatchedStep]) -> list[tuple[int, WatchedLayer]]:
    """All layers but the last one and those that only reshape, with their numbers; as they were in the first step."""
    layers = list(enumerate(steps[0].layers))
    return [(n, layer) for n, layer in layers[:-1] if not layer.name.endswith(_RESHAPING)] or layers


def layers_with_preactivations(steps: Sequence[WatchedStep]) -> list[tuple[int, str]]:
    """Number and name of the layers of which the distribution of pre-activations was seen."""
    layers = enumerate(steps[0].layers if steps else [])
    return [(number, layer.name) for number, layer in layers if layer.preactivations is not None]
