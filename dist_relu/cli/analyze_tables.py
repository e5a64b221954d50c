"""Tables of what `dist-relu analyze` has measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

import numpy as np
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from dist_relu import analysis

_SHOWN_STEPS = 10


def activation_table(layers: Sequence[analysis.LayerActivations], name: str, num_samples: int) -> Table:
    """Make a row for each layer of a model."""
    table = Table("layer", "units", "zeros", "dead units", "mean", "variance")
    table.title = f"Activations of {name} for {num_samples:,} samples"
    for layer in layers:
        numbers = f"{layer.sparsity:.1%}", str(len(layer.dead)), f"{layer.mean:.4g}", f"{layer.variance:.4g}"
        table.add_row(layer.name, str(layer.num_units), *numbers)
    return table


def course_table(courses: Mapping[str, Sequence[analysis.Course]], title: str) -> Table:
    """Make a row for each activation, with the means and deviations of its runs that have not diverged."""
    table = Table("activation", "loss", "test accuracy", "gradient", "zeros", title=title)
    for name, runs in courses.items():
        kept = [run for run in runs if not run.diverged]
        diverged = f" ({len(runs) - len(kept)} of {len(runs)} diverged)" if len(kept) < len(runs) else ""
        table.add_row(
            name + diverged,
            _spread([_last_tenth(run.loss) for run in kept], ".3g", ".1g"),
            _spread([run.test_accuracy for run in kept if run.test_accuracy is not None], ".2%", ".1%"),
            _spread([_last_tenth(run.gradient_norm) for run in kept], ".3g", ".1g"),
            _spread([_last_tenth(run.sparsity) for run in kept], ".1%", ".1%"),
        )
    return table


def flow_table(flow: analysis.GradientFlow, name: str, num_samples: int) -> Table:
    """Make a row for each layer, the loss first and the input last: the way that gradients go."""
    table = Table("at", "norm", "mean magnitude", "variance", "norm at weights")
    table.title = f"Gradients of the loss ({flow.loss:.4g}), {name}, {num_samples:,} samples"
    for stage, magnitude in reversed(flow.outputs.items()):
        weights = [flow.weights[key].norm for key in flow.weights if key == f"{stage.split()[0]}.weight"]
        numbers = (magnitude.norm, magnitude.mean_absolute, magnitude.variance, *weights)
        table.add_row(stage, *(f"{number:.3e}" for number in numbers))
    return table


def steps_table(flows: dict[str, analysis.TimeFlow], name: str, num_samples: int) -> Table:
    """Make a row for each step, the last first: the way that gradients go.  Of many steps, some, evenly."""
    table = Table("after step", *flows)
    table.title = f"Norm of the gradient at the states of {name}, {num_samples:,} samples"
    num_steps = max(len(flow.norms) for flow in flows.values())
    for step in sorted({round(step) for step in np.linspace(1, num_steps, min(num_steps, _SHOWN_STEPS))}, reverse=True):
        norms = (f"{flow.norms[step - 1]:.3e}" if step <= len(flow.norms) else "" for flow in flows.values())
        table.add_row(str(step), *norms)
    return table


def show(table: Table) -> None:
    """Print a table as wide as it is: a number that is cut is another number."""
    for column in table.columns[1:]:
        column.justify = "right"
    table.box, table.pad_edge, table.title_justify = None, False, "left"
    console = Console()
    width = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    Console(width=max(console.width, width)).print(table)


def _last_tenth(values: Sequence[float]) -> float:
    return mean(values[-max(len(values) // 10, 1) :])


def _spread(values: Sequence[float], of_mean: str, of_deviation: str) -> str:
    """Mean ± standard deviation, of a sample; "-" of nothing."""
    if not values:
        return "-"
    return f"{mean(values):{of_mean}}" + (f" ± {stdev(values):{of_deviation}}" if len(values) > 1 else "")
