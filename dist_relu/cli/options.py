"""Options that several commands have: of models and of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from dist_relu.cli.losses import LOSS_FORMS
from dist_relu.cli.parsing import OPTIMIZERS
from dist_relu.cli.types import MODEL, MODEL_FORMS, POSITIVE, SCHEDULE_FORMS, SHARE, OrAuto, choice

Option = Callable[[Callable[..., Any]], Callable[..., Any]]


def model_option_with(default: str) -> Option:
    """`--model`, with a default of its own."""
    return click.option(
        "--model",
        "model_text",
        type=MODEL,
        metavar="MODEL",
        default=default,
        show_default=True,
        help=f"The network: {MODEL_FORMS}, or file.py:function.",
    )


def epochs_option_with(default: int) -> Option:
    """`--epochs`, with a default of its own."""
    return click.option(
        "--epochs", type=click.IntRange(1), default=default, show_default=True, help="How often every sample is seen."
    )


model_option = model_option_with("mlp:256,128")
epochs_option = epochs_option_with(20)
dtype_option = click.option(
    "--dtype",
    type=choice(["float32", "float64"]),
    help="The type of the numbers that the model computes with. Default: float32, or what a model from a file has.",
)
batch_option = click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Samples in a batch, over all workers together.",
)
optimizer_option = click.option(
    "--optimizer", type=choice(OPTIMIZERS), default="sgd", show_default=True, help="How weights follow gradients."
)
lr_option = click.option(
    "--lr",
    type=POSITIVE,
    help=f"The learning rate. Default: {', '.join(f'{rule.lr:g} for {name}' for name, rule in OPTIMIZERS.items())}.",
)
momentum_option = click.option(
    "--momentum",
    type=SHARE,
    default=0.9,
    show_default=True,
    help="The momentum of sgd, nesterov, rmsprop and lars.",
)
loss_option = click.option(
    "--loss", metavar="LOSS", help=f"What is minimised: {LOSS_FORMS}. Default: as the targets are."
)
class_weight_option = click.option(
    "--class-weight",
    metavar="WEIGHTS",
    help="How much samples of each class count: balanced, so that all classes count alike, or CLASS:WEIGHT,...",
)
schedule_option = click.option(
    "--schedule",
    default="cosine",
    show_default=True,
    help=f"How the learning rate changes: {SCHEDULE_FORMS}. Numbers may be left out. onecycle rises for a SHARE of the "
    "run, exponential multiplies by FACTOR in every epoch, plateau when the loss (in validation, if there is one) was "
    "no better for PATIENCE epochs.",
)
_SHARDS = "The number of parts of the work; with equal shards, results have equal bits."

shards_option = click.option("--shards", type=click.IntRange(1), help=f"{_SHARDS} Default: the number of workers.")
tuned_shards_option = click.option(
    "--shards",
    type=OrAuto(click.IntRange(1)),
    metavar="N",
    help=f"{_SHARDS} auto tries what is fastest, once, before the run: as many as workers, or 2 or 4 times as many. "
    "Default: the number of workers, or auto where that is.",
)
