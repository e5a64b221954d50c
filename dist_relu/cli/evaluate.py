"""`dist-relu evaluate`: what a saved model can on unseen samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

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
from dist_relu.cli.progress import tested
from dist_relu.cli.types import json_option
from dist_relu.core.files import write_json
from dist_relu.data import load
from dist_relu.data.labels import listed


@click.command()
@saved_model_argument
@data_option
@json_option
@worker_options
def evaluate(model_path: Path, source: str, path: Path | None, **options: Any) -> None:
    """Test a saved MODEL on the unseen samples of a data set.

    MODEL is a file that `train --save` wrote, or the folder of a run that `train --log-dir` wrote.
    """
    check_writable("--json", path)
    model = load_model(model_file(model_path))
    with usage_errors():
        data = load(source)
        model.build(data.test.x.shape[1:])
    with started(**options) as coordinator:
        test = coordinator.evaluate(model, data.test)
    click.echo(tested(test.accuracy, test.loss, len(data.test)))
    if model.classes:
        click.echo(f"Classes: {listed(model.classes)}.")
    if path:
        numbers = {"loss": test.loss, "accuracy": test.accuracy, "samples": test.num_samples}
        classes = {"classes": list(model.classes)} if model.classes else {}
        write_json(path, {"model": str(model_path), "data": source, **numbers, **classes})
