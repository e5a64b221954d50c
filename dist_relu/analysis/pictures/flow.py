"""How gradients flow through the layers of a network, and through time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

from dist_relu.analysis.gradient import GradientFlow
from dist_relu.analysis.recurrence import TimeFlow
from dist_relu.analysis.style import draw, draw_course, legend_below, log_scale, look, spread_out
from dist_relu.watching import WatchedStep


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


def draw_gradients_over_time(steps: Sequence[WatchedStep], path: Path) -> None:
    """The norm of the gradient of weights in the watched steps of a run, and the share of their own norm that changed.

    Of biases and the like nothing is shown; of many layers, some from the first to the last.
    """
    shown = [number for number, param in enumerate(steps[0].params) if param.name.endswith("weight")]
    shown = spread_out(shown or list(range(len(steps[0].params))))

    def paint(norms: Any, ratios: Any) -> None:
        when = [step.step for step in steps]
        for line, number in enumerate(shown):
            seen = [step.params[number] for step in steps]
            draw_course(norms, line, when, [param.gradient_norm for param in seen], seen[0].name)
            changes = [nan if param.update_ratio is None else param.update_ratio for param in seen]
            draw_course(ratios, line, when, changes, seen[0].name)
        norms.set(title="gradients", xlabel="step", ylabel="norm of the gradient")
        ratios.set(title="changes of weights", xlabel="step", ylabel="‖change‖ / ‖weights‖")
        log_scale(norms, ratios)
        legend_below(norms)

    draw(2, paint, path, panel_inches=(4.0, 3.4))


def draw_recurrence(flows: Mapping[str, TimeFlow], path: Path) -> None:
    """The norm of the gradient at the state after every step, of several recurrences, by what they are called."""

    def paint(axes: Any) -> None:
        paint_recurrence(axes, flows)
        axes.legend()

    draw(1, paint, path)


def paint_recurrence(axes: Any, flows: Mapping[str, TimeFlow]) -> None:
    """The same as a panel of a picture, without a legend; gradients that are exactly 0 are left out."""
    for number, (name, flow) in enumerate(flows.items()):
        steps = range(1, 1 + len(flow.norms))
        norms = [norm or None for norm in flow.norms]
        axes.plot(steps, norms, label=name, markevery=max(len(norms) // 8, 1), **look(number))
    axes.set(title="gradients through time", ylabel="norm of the gradient at the state", yscale="log")
    axes.set_xlabel("step: the last is next to the loss")
