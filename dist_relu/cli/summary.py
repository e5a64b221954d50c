"""`dist-relu summary`: the layers of a model, and what they take."""

from __future__ import annotations

import click

from dist_relu import nn
from dist_relu.cli.common import data_option, usage_errors
from dist_relu.cli.options import dtype_option, model_option
from dist_relu.cli.parsing import parse_model
from dist_relu.data import load


@click.command()
@data_option
@model_option
@dtype_option
def summary(source: str, model_text: str, dtype: str | None) -> None:
    """Print the layers of a model for a data set: their output shapes, parameters and bytes."""
    with usage_errors():
        data = load(source)
        click.echo(nn.summary(parse_model(model_text, data, dtype).build(data.train.sample_shape)))
