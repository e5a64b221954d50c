"""How gradients flow through the layers of a network, and through time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

from dist_relu.analysis.gradient import GradientFlow
from dist_relu.analysis.recurrence import TimeFlow
from dist_relu.engine.watch.records import WatchedStep
from dist_relu.reports.plots.style import (
    PLAIN,
    Form,
    as_label,
    draw,
    draw_course,
    legend_below,
    log_scale,
    look,
    name_ticks,
    sentences,
    shown_of,
    smoothing_note,
    spread_out,
    watched_note,
)


def draw_gradients(flows: Mapping[str, GradientFlow], path: Path, *, form: Form = PLAIN, about: str = "") -> None:
    """The norms of gradients by layer, for several networks of the same layers; flows: by what they are called.

    At the input and at the output of every layer with weights (before its activation), and at the weights.
    """

    def paint(at_outputs: Any, at_weights: Any) -> None:
        for number, (name, flow) in enumerate(flows.items()):
            stages = _stages(flow)
            norms = [flow.outputs[stage].norm for stage in ("input", *stages)]
            at_outputs.plot(norms, label=as_label(name), **look(number))
            norms = [flow.weights[_weight_of(stage)].norm for stage in stages]
            at_weights.plot(norms, label=as_label(name), **look(number))
        longest = max(map(_stages, flows.values()), key=len)
        name_ticks(at_outputs, ["input", *longest])
        name_ticks(at_weights, longest)
        at_outputs.set(title="at outputs of layers", ylabel="norm of the gradient")
        at_weights.set(title="at weights")
        log_scale(at_outputs, at_weights)
        legend_below(at_outputs)

    note = "Layers with weights, from the input to the one next to the loss; their outputs before the activation."
    draw(2, paint, path, form=form, about=about, note=note)


def _stages(flow: GradientFlow) -> list[str]:
    """The names of the layers with weights."""
    return [stage for stage in flow.outputs if _weight_of(stage) in flow.weights]


def _weight_of(stage: str) -> str:
    return f"{stage.split(maxsplit=1)[0]}.weight"


def draw_gradients_over_time(steps: Sequence[WatchedStep], path: Path, *, form: Form = PLAIN, about: str = "") -> None:
    """The norm of the gradient of weights in the watched steps of a run, and the share of their own norm that changed.

    Of biases and the like nothing is shown; of many layers, some from the first to the last.
    """
    weights = [number for number, param in enumerate(steps[0].params) if param.name.endswith("weight")]
    weights = weights or list(range(len(steps[0].params)))
    shown = spread_out(weights)

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

    note = sentences(
        shown_of(len(shown), len(weights), "weights"),
        watched_note([step.step for step in steps]),
        smoothing_note(len(steps)),
    )
    draw(2, paint, path, panel_inches=(4.0, 3.4), form=form, about=about, note=note)


def draw_recurrence(flows: Mapping[str, TimeFlow], path: Path, *, form: Form = PLAIN, about: str = "") -> None:
    """The norm of the gradient at the state after every step, of several recurrences, by what they are called."""

    def paint(axes: Any) -> None:
        paint_recurrence(axes, flows)
        legend_below(axes)

    draw(1, paint, path, panel_inches=(5.0, 3.4), form=form, about=about)


def paint_recurrence(axes: Any, flows: Mapping[str, TimeFlow]) -> None:
    """The same as a panel of a picture, without a legend; gradients that are exactly 0 are left out."""
    for number, (name, flow) in enumerate(flows.items()):
        steps = range(1, 1 + len(flow.norms))
        norms = [norm or None for norm in flow.norms]
        axes.plot(steps, norms, label=as_label(name), markevery=max(len(norms) // 8, 1), **look(number))
    axes.set(title="gradients through time", ylabel="norm of the gradient at the state")
    axes.set_xlabel("step: the last is next to the loss")
    log_scale(axes)
