"""`dist-relu analyze ...`: what is measured, shown as tables and written as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from dist_relu import analysis
from dist_relu.checkpoint import load_model
from dist_relu.cli.analyze_tables import activation_table, course_table, flow_table, show, steps_table
from dist_relu.cli.commands import Commands
from dist_relu.cli.common import check_writable, data_option, model_file, started, usage_errors, worker_options
from dist_relu.cli.learning_rate import learning_rate
from dist_relu.cli.losses import parse_class_weight, parse_loss
from dist_relu.cli.options import (
    batch_option,
    class_weight_option,
    dtype_option,
    epochs_option_with,
    loss_option,
    lr_option,
    model_option_with,
    momentum_option,
    optimizer_option,
    schedule_option,
    shards_option,
)
from dist_relu.cli.parsing import (
    ACTIVATIONS,
    INITIALIZERS,
    OPTIMIZERS,
    parse_new_model,
    parse_recurrent_init,
    with_activation_and_init,
    with_depth,
    with_recurrent_init,
)
from dist_relu.cli.progress import RunsDisplay
from dist_relu.cli.schedules import parse_schedule, plateau_of
from dist_relu.cli.types import MODEL, SEED, GroupedCommand, choice, json_option
from dist_relu.core.files import write_json
from dist_relu.data import Dataset, Split, load
from dist_relu.engine.arguments import loss_for
from dist_relu.engine.watch.records import Watch
from dist_relu.engine.weighting import check_class_weight
from dist_relu.nn import Sequential

samples_option = click.option(
    "--samples",
    type=click.IntRange(1),
    default=2048,
    show_default=True,
    help="Look at no more than so many training samples.",
)
model_option = model_option_with("mlp:256")
depth_option = click.option(
    "--depth", type=click.IntRange(1), help="With --model mlp:UNITS, the number of hidden layers of so many units."
)
activation_option = click.option(
    "--activation",
    "activations",
    type=choice(ACTIVATIONS),
    multiple=True,
    help="Put this activation in place of every ReLU, with the same initial weights; may be given several times.",
)
init_option = click.option(
    "--init", type=choice(INITIALIZERS), help="Draw the weights of dense layers and convolutions like this."
)
seed_option = click.option("--seed", type=SEED, default=0, show_default=True, help="Fixes all that is random.")


@click.group(cls=Commands)
def analyze() -> None:
    """Measure what a network does: activations, dead units, the flow of gradients through layers and time."""


analyze.add_command(learning_rate)


@analyze.command(
    cls=GroupedCommand,
    epilog="\b\nExample:\n"
    "  dist-relu analyze gradients --model mlp:100 --depth 20 \\\n"
    "    --activation relu --activation tanh\n",
)
@data_option
@model_option
@depth_option
@activation_option
@init_option
@loss_option
@samples_option
@seed_option
@dtype_option
@json_option
@worker_options
def gradients(
    source: str,
    model_text: str,
    depth: int | None,
    activations: Sequence[str],
    init: str | None,
    loss: str | None,
    samples: int,
    seed: int,
    dtype: str | None,
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
        models, minimised = _models(data, model_text, depth, activations, init, dtype), parse_loss(loss, 0.0)
        for model in models.values():
            model.build(data.train.sample_shape).initialize(seed)
            loss_for(data.train, minimised).check(data.train.y, model.output_shape)
    part = _first(data.train, samples)
    runs = []
    with started(**workers) as coordinator, RunsDisplay(Console(), len(models)) as display:
        for name, model in models.items():
            display.begin(name or model_text)
            flow = analysis.gradient_flow(coordinator, model, part, loss=minimised)
            show(flow_table(flow, name or model_text, len(part)))
            runs.append({"model": model_text, "depth": depth, "activation": name, "init": init, **asdict(flow)})
    told = {"data": source, "model": with_depth(model_text, depth)} | _given(init=init, loss=loss)
    _write(path, {**told, "samples": len(part), "seed": seed, "runs": runs})


@analyze.command(
    cls=GroupedCommand,
    epilog="\b\nExample:\n  dist-relu analyze recurrence --data adding:20 --init identity \\\n    --init he-normal\n",
)
@data_option
@click.option(
    "--model",
    "model_text",
    type=MODEL,
    metavar="MODEL",
    default="rnn:100",
    show_default=True,
    help="The network: rnn:UNITS, rnn:UNITS,pixels, or file.py:function.",
)
@click.option(
    "--init",
    "inits",
    default=["identity", "he-normal", "orthogonal"],
    show_default=True,
    multiple=True,
    help=f"Draw recurrent weights like this: identity, identity:SCALE, {', '.join(INITIALIZERS)}; may be given several "
    "times.",
)
@loss_option
@samples_option
@seed_option
@dtype_option
@json_option
@worker_options
def recurrence(
    source: str,
    model_text: str,
    inits: Sequence[str],
    loss: str | None,
    samples: int,
    seed: int,
    dtype: str | None,
    path: Path | None,
    **workers: Any,
) -> None:
    """How large gradients are at every step of a new recurrent network, from the last one back to the first.

    At the states: the norm of the gradient of each sample's own loss, of which the root mean square over samples.
    """
    check_writable("--json", path)
    with usage_errors():
        data = load(source)
        plain, minimised = parse_new_model(model_text, data, dtype), parse_loss(loss, 0.0)
        models = {init: with_recurrent_init(plain, parse_recurrent_init(init)) for init in inits}
        for model in models.values():
            model.build(data.train.sample_shape).initialize(seed)
    part = _first(data.train, samples)
    flows: dict[str, analysis.TimeFlow] = {}
    with started(**workers) as coordinator, usage_errors(), RunsDisplay(Console(), len(models)) as display:
        for init, model in models.items():
            display.begin(init)
            layers = analysis.gradient_through_time(coordinator, model, part, loss=minimised)
            flows |= {f"{init}, {layer.name}" if len(layers) > 1 else init: layer for layer in layers}
    show(steps_table(flows, model_text, len(part)))
    runs = [{"init": name, **asdict(flow)} for name, flow in flows.items()]
    told = {"data": source, "model": model_text} | _given(loss=loss)
    _write(path, {**told, "samples": len(part), "seed": seed, "runs": runs})


@analyze.command(
    "activations",
    cls=GroupedCommand,
    epilog="\b\nExample:\n  dist-relu analyze activations model.safetensors --data mnist\n",
)
@click.argument("model_path", metavar="MODEL", type=click.Path(exists=True, path_type=Path))
@data_option
@samples_option
@json_option
@worker_options
def show_activations(model_path: Path, source: str, samples: int, path: Path | None, **workers: Any) -> None:
    """Sparsity, dead units, mean and variance of every layer of a saved MODEL.

    MODEL is a file that `train --save` wrote, or the folder of a run that `train --log-dir` wrote. A unit is dead when
    it is 0 for every sample.
    """
    check_writable("--json", path)
    model = load_model(model_file(model_path))
    with usage_errors():
        data = load(source)
        model.build(data.train.sample_shape)
    part = _first(data.train, samples)
    with started(**workers) as coordinator:
        layers = analysis.activation_statistics(coordinator, model, part.x)
    show(activation_table(layers, model_path.name, len(part)))
    told = {"data": source, "model": model_path.name, "samples": len(part)}
    _write(path, {**told, "layers": [asdict(layer) for layer in layers]})


@analyze.command(
    cls=GroupedCommand,
    epilog="\b\nExample:\n"
    "  dist-relu analyze training --model mlp:100 --depth 5 --activation relu \\\n"
    "    --activation tanh --json t.json\n",
)
@data_option
@model_option
@depth_option
@activation_option
@init_option
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="The number of runs of each.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="The seed of the first run.")
@epochs_option_with(10)
@batch_option
@optimizer_option
@lr_option
@schedule_option
@momentum_option
@loss_option
@class_weight_option
@click.option(
    "--watch-every", type=click.IntRange(1), default=10, show_default=True, help="Look at one in so many steps."
)
@shards_option
@dtype_option
@json_option
@worker_options
def training(
    source: str,
    model_text: str,
    depth: int | None,
    activations: Sequence[str],
    init: str | None,
    seeds: int,
    seed: int,
    epochs: int,
    batch_size: int,
    optimizer: str,
    lr: float | None,
    momentum: float,
    schedule: str,
    loss: str | None,
    class_weight: str | None,
    watch_every: int,
    shards: int | None,
    dtype: str | None,
    path: Path | None,
    **workers: Any,
) -> None:
    """How networks with different activations learn: loss, norm of the gradient and sparsity, over several seeds.

    The table has means ± standard deviations over the seeds: of the loss, the norm of the gradient and the share of
    zeros in hidden layers, over the last tenth of the watched steps, and of the accuracy on unseen samples.
    """
    check_writable("--json", path)
    lr = OPTIMIZERS[optimizer].lr if lr is None else lr
    if seed + seeds > 2**64:
        raise click.UsageError(f"--seed {seed} --seeds {seeds}: seeds must stay below 2^64.")
    with usage_errors():
        rule = OPTIMIZERS[optimizer].make(parse_schedule(schedule, lr, epochs), momentum, 0.0)
        if plateau_of(schedule, validates=False):
            raise ValueError(f"--schedule {schedule}: networks that are compared have the same learning rates.")
        data = load(source)
        models, minimised = _models(data, model_text, depth, activations, init, dtype), parse_loss(loss, 0.0)
        weights = check_class_weight(parse_class_weight(class_weight, data.train), data.train)
        for model in models.values():
            model.build(data.train.sample_shape)
            for part in data.parts:
                loss_for(part, minimised).check(part.y, model.output_shape)
    courses: dict[str, list[analysis.Course]] = {}
    with started(**workers) as coordinator, RunsDisplay(Console(), len(models) * seeds) as display:
        for name, model in models.items():
            courses[name or model_text] = []
            for number in range(seed, seed + seeds):
                display.begin(f"{name or model_text}, seed {number}")
                courses[name or model_text].append(
                    analysis.watched_course(
                        coordinator,
                        model.blueprint(),
                        data,
                        rule,
                        epochs=epochs,
                        batch_size=batch_size,
                        watch=Watch(watch_every),
                        seed=number,
                        shards=shards,
                        loss=minimised,
                        class_weight=weights,
                        on_progress=display.show,
                    )
                )
        shards = shards or coordinator.workers
    show(course_table(courses, f"{with_depth(model_text, depth)} on {source}, epochs: {epochs}"))
    options = {"data": source, "model": with_depth(model_text, depth), "init": init, "optimizer": optimizer, "lr": lr}
    options |= {"momentum": momentum, "schedule": schedule, "epochs": epochs, "batch_size": batch_size}
    options |= {"shards": shards, "dtype": next(iter(models.values())).dtype.name}
    options |= _given(loss=loss, class_weight=class_weight)
    runs = [
        {"activation": name, "seed": number, **asdict(run)}
        for name, runs in courses.items()
        for number, run in enumerate(runs, seed)
    ]
    _write(path, {**options, "runs": runs})


def _models(
    data: Split, text: str, depth: int | None, activations: Sequence[str], init: str | None, dtype: str | None
) -> dict[str | None, Sequential]:
    """The model with each of the activations, by their names; without any, as it is."""
    plain = parse_new_model(with_depth(text, depth), data, dtype)
    return {name: with_activation_and_init(plain, name, init) for name in activations or (None,)}


def _given(**options: str | None) -> dict[str, str]:
    """Options that were given."""
    return {name: value for name, value in options.items() if value}


def _first(data: Dataset, num_samples: int) -> Dataset:
    return data.of_rows(np.arange(min(num_samples, len(data))))


def _write(path: Path | None, content: dict[str, Any]) -> None:
    if path:
        write_json(path, content)
