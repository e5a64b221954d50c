"""`dist-relu predict`: what a saved model says of samples."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import click
import numpy as np

from dist_relu.checkpoint import load_model
from dist_relu.cli.common import (
    check_writable,
    model_file,
    saved_model_argument,
    started,
    usage_errors,
    worker_options,
)
from dist_relu.cli.types import FILE
from dist_relu.core.files import write_file
from dist_relu.core.untrusted import printable
from dist_relu.data import load_samples
from dist_relu.nn.structure import tells_classes, tells_labels


@click.command()
@saved_model_argument
@click.argument("samples_path", metavar="SAMPLES", type=click.Path(exists=True, path_type=Path))
@click.option("--output", metavar="FILE", type=FILE, help="Write the model's raw outputs to FILE.npy instead.")
@worker_options
def predict(model_path: Path, samples_path: Path, output: Path | None, **options: Any) -> None:
    """Print what a saved MODEL says of each of the SAMPLES, a line each: its class, or the numbers of a regression.

    Classes that had names in the data that the model was trained on are told by these. Of a model that was trained on
    labels, a line has 1 or 0 for each. MODEL is a file that `train
    --save` wrote, or the folder of a run that `train --log-dir` wrote. SAMPLES is a .npy
    file, a .npz file with an array x, a table (.csv, .parquet, .feather) of the features alone, an image, or a folder
    of images; unsigned bytes are taken for images and divided by 255, as in training.
    """
    check_writable("--output", output)
    if output and output.suffix != ".npy":
        raise click.UsageError(f"--output {output}: expected a name that ends in .npy.")
    model = load_model(model_file(model_path))
    x = load_samples(samples_path)
    with usage_errors():
        model.build(x.shape[1:])
    with started(**options) as coordinator:
        outputs = coordinator.forward(model, x)
    if output:
        content = io.BytesIO()
        np.save(content, outputs)
        write_file(output, content.getbuffer())
    else:
        rows = outputs.reshape(len(outputs), -1)
        names = list(map(printable, model.classes or ()))
        if tells_classes(model):
            for number in rows.argmax(axis=1).tolist():
                click.echo(names[number] if number < len(names) else number)
        elif tells_labels(model):
            for there in (rows > 0).astype(int).tolist():
                click.echo(names[there[0]] if names and len(there) == 1 else " ".join(map(str, there)))
        else:
            for row in rows:
                click.echo(" ".join(map(str, row)))
