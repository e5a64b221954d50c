"""How gradients flow through a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dist_relu.analysis.gradient import GradientFlow
from dist_relu.analysis.style import draw, look


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
