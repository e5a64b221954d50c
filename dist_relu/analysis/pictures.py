"""Pictures of what was measured; each is written to a .png or .svg file.  They need matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dist_relu.analysis.activation import LayerActivations
from dist_relu.analysis.gradient import GradientFlow
from dist_relu.analysis.style import COLOURS, draw, draw_course, look
from dist_relu.watching import WatchedStep

_MAX_LABELS = 12


def draw_gradients(flows: Mapping[str, GradientFlow], path: Path) -> None:
    """The norms of gradients by layer, for several networks of the same layers; flows: by what they are called.

    At the input and at the output of every layer with weights (before its activation), and at the weights.
    """

    def paint(at_outputs: Any, at_weights: Any) -> None:
        for number, (name, flow) in enumerate(flows.items()):
            stages = ["input", *(stage for stage in flow.outputs if f"{stage.split()[0]}.weight" in flow.weights)]
            norms = [flow.outputs[stage].norm for stage in stages]
            at_outputs.plot(range(len(stages)), norms, label=name, **look(number))
            norms = [flow.weights[f"{stage.split()[0]}.weight"].norm for stage in stages[1:]]
            at_weights.plot(range(1, len(stages)), norms, label=name, **look(number))
        at_outputs.set(title="at outputs of layers", ylabel="norm of the gradient", yscale="log")
        at_weights.set(title="at weights", yscale="log")
        for axes in (at_outputs, at_weights):
            axes.set_xlabel("layer: 0 is the input, the last is next to the loss")
            axes.xaxis.get_major_locator().set_params(integer=True)
        at_outputs.legend()

    draw(2, paint, path)


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
        sizes.axhline(0, color="#888888", linewidth=0.8)
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


def draw_curves(runs: Mapping[str, Sequence[WatchedStep]], path: Path) -> None:
    """Loss and, where there are classes, accuracy on the samples of the watched steps; runs: by their names."""
    has_classes = any(step.accuracy is not None for steps in runs.values() for step in steps)

    def paint(loss: Any, accuracy: Any = None) -> None:
        for number, (name, steps) in enumerate(runs.items()):
            when = [step.step for step in steps]
            draw_course(loss, number, when, [step.loss for step in steps], name)
            if accuracy is not None and steps[0].accuracy is not None:
                draw_course(accuracy, number, when, [100 * (step.accuracy or 0) for step in steps], name)
        loss.set(title="loss", xlabel="step", ylabel="mean loss of a batch", yscale="log")
        loss.legend()
        if accuracy is not None:
            accuracy.set(title="accuracy", xlabel="step", ylabel="share of a batch in %")

    draw(2 if has_classes else 1, paint, path)
