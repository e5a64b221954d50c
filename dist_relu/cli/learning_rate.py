"""`dist-relu analyze learning-rate`: which learning rate suits a model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from dist_relu.cli.common import check_writable, data_option, started, usage_errors, worker_options
from dist_relu.cli.losses import parse_class_weight, parse_loss
from dist_relu.cli.options import (
    batch_option,
    class_weight_option,
    dtype_option,
    loss_option,
    model_option,
    momentum_option,
    optimizer_option,
    shards_option,
)
from dist_relu.cli.parsing import OPTIMIZERS, parse_new_model
from dist_relu.cli.progress import StatusLine
from dist_relu.cli.types import POSITIVE, SEED, GroupedCommand, json_option
from dist_relu.core.files import write_json
from dist_relu.data import load
from dist_relu.engine.weighting import check_class_weight
from dist_relu.optim import Constant
from dist_relu.run.learning_rate import LearningRateCurve, LearningRateFinder

_SHOWN_RATES = 12


@click.command(
    "learning-rate",
    cls=GroupedCommand,
    epilog="\b\nExample:\n"
    "  dist-relu analyze learning-rate --model mlp:100 --json rates.json\n"
    "  dist-relu plot learning-rate rates.json\n",
)
@data_option
@model_option
@batch_option
@optimizer_option
@momentum_option
@loss_option
@class_weight_option
@click.option(
    "--lowest",
    type=POSITIVE,
    default=LearningRateFinder.lowest,
    show_default=True,
    help="The learning rate of the first step.",
)
@click.option(
    "--highest",
    type=POSITIVE,
    default=LearningRateFinder.highest,
    show_default=True,
    help="The learning rate of the last step.",
)
@click.option(
    "--steps", type=click.IntRange(2), default=LearningRateFinder.steps, show_default=True, help="Take so many steps."
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Fixes all that is random.")
@shards_option
@dtype_option
@json_option
@worker_options
def learning_rate(
    source: str,
    model_text: str,
    batch_size: int,
    optimizer: str,
    momentum: float,
    loss: str | None,
    class_weight: str | None,
    lowest: float,
    highest: float,
    steps: int,
    seed: int,
    shards: int | None,
    dtype: str | None,
    path: Path | None,
    **workers: Any,
) -> None:
    """How the loss of a new network goes at ever higher learning rates, and which one is suggested.

    Each step has a higher rate than the one before; it ends when the smoothed loss is four times its minimum. The
    suggestion is the rate at which the smoothed loss falls fastest.
    """
    check_writable("--json", path)
    with usage_errors():
        finder = LearningRateFinder(lowest, highest, steps)
        data = load(source)
        model, minimised = parse_new_model(model_text, data, dtype), parse_loss(loss, 0.0)
        weights = check_class_weight(parse_class_weight(class_weight, data.train), data.train)
        rule = OPTIMIZERS[optimizer].make(Constant(lowest), momentum, 0.0)
    with started(**workers) as coordinator, StatusLine(Console()) as status:
        status.phase("Trying learning rates")
        trainer = coordinator.trainer(
            model,
            data.train,
            rule,
            batch_size=batch_size,
            loss=minimised,
            shards=shards,
            seed=seed,
            class_weight=weights,
        )
        with trainer:
            curve = finder.find(trainer)
        shards = shards or coordinator.workers
    Console().print(_table(curve, f"{model_text} on {source}, {optimizer}"))
    click.echo(
        "The loss falls nowhere." if curve.suggestion is None else f"Suggested learning rate: {curve.suggestion:.2g}"
    )
    if path:
        options = {"data": source, "model": model_text, "optimizer": optimizer, "momentum": momentum}
        options |= {"batch_size": batch_size, "seed": seed, "shards": shards, "dtype": model.dtype.name}
        options |= {name: text for name, text in [("loss", loss), ("class_weight", class_weight)] if text}
        write_json(path, {**options, **asdict(curve)})


def _table(curve: LearningRateCurve, title: str) -> Table:
    """Some of the steps, evenly."""
    table = Table("learning rate", "loss", "smoothed", title=title, box=None, pad_edge=False, title_justify="left")
    num_steps = len(curve.rates)
    for step in np.unique(np.linspace(0, num_steps - 1, min(num_steps, _SHOWN_RATES)).round().astype(int)):
        table.add_row(f"{curve.rates[step]:.3g}", f"{curve.losses[step]:.4g}", f"{curve.smoothed[step]:.4g}")
    for column in table.columns:
        column.justify = "right"
    return table
