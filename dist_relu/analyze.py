"""`dist-relu analyze ...`: tables on the terminal, JSON in a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dist_relu import analysis
from dist_relu.checkpoint import load_model
from dist_relu.command_parts import check_writable, usage_errors, worker_options
from dist_relu.coordinator import start
from dist_relu.data import Dataset, load
from dist_relu.options import ACTIVATIONS, INITIALIZERS, MODEL_FORMS, deep, parse_model, varied

data_option = click.option(
    "--data", "source", default="digits", show_default=True, help="digits, mnist, a folder or .npz file."
)
json_option = click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON.")
samples_option = click.option(
    "--samples", type=click.IntRange(1), default=2048, show_default=True, help="So many training samples at most."
)


@click.group()
def analyze() -> None:
    """Measure what a network does: activations, dead units, the flow of gradients."""


@analyze.command()
@data_option
@click.option(
    "--model", "model_text", default="mlp:256", show_default=True, help=f"{MODEL_FORMS}, or file.py:function."
)
@click.option("--depth", type=click.IntRange(1), help="So many hidden layers of the units of --model mlp:UNITS.")
@click.option(
    "--activation",
    "activations",
    type=click.Choice(list(ACTIVATIONS)),
    multiple=True,
    help="In place of every ReLU; may be given several times.",
)
@click.option("--init", type=click.Choice(list(INITIALIZERS)), help="Of dense layers and convolutions.")
@samples_option
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@json_option
@worker_options
def gradients(
    source: str,
    model_text: str,
    depth: int | None,
    activations: Sequence[str],
    init: str | None,
    samples: int,
    seed: int,
    dtype: str,
    path: Path | None,
    **workers: Any,
) -> None:
    """How large gradients are at every layer of a new network, from the loss back to the input.

    At the outputs of layers: of each sample's own loss; its root mean square over samples, and its mean magnitude and
    variance over all elements. At weights: the norm of the gradient of the mean loss.
    """
    check_writable("--json", path)
    with usage_errors():
        data = load(source)
        plain = parse_model(deep(model_text, depth), data, dtype)
        models = {name: varied(plain, name, init) for name in activations or (None,)}
        for model in models.values():
            model.build(data.train.x.shape[1:]).initialize(seed)
    part = _first(data.train, samples)
    console, runs = Console(), []
    with start(**workers) as coordinator:
        for name, model in models.items():
            flow = analysis.gradient_flow(coordinator, model, part)
            console.print(_flow_table(flow, name or model_text, len(part)))
            runs.append({"model": model_text, "depth": depth, "activation": name, "init": init, **asdict(flow)})
    _write(path, {"samples": len(part), "seed": seed, "runs": runs})


@analyze.command("activations")
@click.argument("model_path", metavar="MODEL", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@data_option
@samples_option
@json_option
@worker_options
def show_activations(model_path: Path, source: str, samples: int, path: Path | None, **workers: Any) -> None:
    """Sparsity, dead units, mean and variance of every layer of a saved MODEL.

    A unit is dead when it is 0 for every sample.
    """
    check_writable("--json", path)
    model = load_model(model_path)
    with usage_errors():
        data = load(source)
        model.build(data.train.x.shape[1:])
    part = _first(data.train, samples)
    with start(**workers) as coordinator:
        layers = analysis.activation_statistics(coordinator, model, part.x)
    table = Table("layer", "units", "zeros", "dead units", "mean", "variance")
    table.title = f"Activations of {model_path.name} for {len(part):,} samples"
    for layer in layers:
        numbers = f"{layer.sparsity:.1%}", str(len(layer.dead)), f"{layer.mean:.4g}", f"{layer.variance:.4g}"
        table.add_row(layer.name, str(layer.num_units), *numbers)
    Console().print(_aligned(table))
    _write(path, {"samples": len(part), "layers": [asdict(layer) for layer in layers]})


def _flow_table(flow: analysis.GradientFlow, name: str, num_samples: int) -> Table:
    """The loss first, the input last: the way that gradients go."""
    table = Table("at", "norm", "mean magnitude", "variance", "norm at weights")
    table.title = f"Gradients of the loss ({flow.loss:.4g}), {name}, {num_samples:,} samples"
    for stage, magnitude in reversed(flow.outputs.items()):
        weights = [flow.weights[key].norm for key in flow.weights if key == f"{stage.split()[0]}.weight"]
        numbers = (magnitude.norm, magnitude.mean_absolute, magnitude.variance, *weights)
        table.add_row(stage, *(f"{number:.3e}" for number in numbers))
    return _aligned(table)


def _aligned(table: Table) -> Table:
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _first(data: Dataset, num_samples: int) -> Dataset:
    return Dataset(data.x[:num_samples], data.y[:num_samples])


def _write(path: Path | None, content: dict[str, Any]) -> None:
    if path:
        path.write_text(json.dumps(content, indent=2) + "\n")
