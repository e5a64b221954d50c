"""`dist-relu evaluate`: what a saved model can on unseen samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from dist_relu.checkpoint import load_model
from dist_relu.cli.common import (
    check_writable,
    data_option,
    model_file,
    saved_model_argument,
    started,
    usage_errors,
    worker_options,
)
from dist_relu.cli.metric_tables import names_in, told
from dist_relu.cli.progress import tested
from dist_relu.cli.types import json_option
from dist_relu.core.files import write_json
from dist_relu.data import load
from dist_relu.data.labels import listed
from dist_relu.engine.arguments import loss_for
from dist_relu.engine.scoring import checked_metrics


@click.command()
@saved_model_argument
@data_option
@click.option(
    "--metrics",
    metavar="NAMES",
    help="Measure all, or some: report,confusion,f1,roc_auc,... of classes, r2,mae,mse,rmse of real numbers. A name "
    "that is none has all of them listed.",
)
@json_option
@worker_options
def evaluate(model_path: Path, source: str, metrics: str | None, path: Path | None, **options: Any) -> None:
    """Test a saved MODEL on the unseen samples of a data set.

    MODEL is a file that `train --save` wrote, or the folder of a run that `train --log-dir` wrote.
    """
    check_writable("--json", path)
    model = load_model(model_file(model_path))
    with usage_errors():
        data = load(source)
        model.build(data.test.sample_shape)
        wanted = checked_metrics(names_in(metrics), model, data.test, loss_for(data.test, model.loss))
    with started(**options) as coordinator:
        test = coordinator.evaluate(model, data.test, metrics=wanted)
    click.echo(tested(test.accuracy, test.loss, len(data.test)))
    if model.classes:
        click.echo(f"Classes: {listed(model.classes)}.")
    if test.metrics:
        click.echo(f"\n{told(test.metrics, model.classes)}")
    if path:
        numbers = {"loss": test.loss, "accuracy": test.accuracy, "samples": test.num_samples}
        classes = {"classes": list(model.classes)} if model.classes else {}
        measured = {"metrics": as_plain(test.metrics)} if test.metrics else {}
        write_json(path, {"model": str(model_path), "data": source, **numbers, **classes, **measured})


def as_plain(value: Any) -> Any:
    """Metrics as JSON has them: arrays as lists."""
    if isinstance(value, Mapping):
        return {name: as_plain(inner) for name, inner in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value
