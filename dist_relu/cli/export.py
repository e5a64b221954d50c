"""`dist-relu export`: a saved model for programs of others."""

from __future__ import annotations

from pathlib import Path

import click

from dist_relu.checkpoint import load_model
from dist_relu.cli.common import check_writable, model_file, saved_model_argument, usage_errors
from dist_relu.cli.types import FILE
from dist_relu.core.files import write_file
from dist_relu.export import numpy_source
from dist_relu.nn import Sequential


@click.command()
@saved_model_argument
@click.option(
    "--to", "output", metavar="FILE", type=FILE, required=True, help="Where to: a name that ends in .onnx or .py."
)
def export(model_path: Path, output: Path) -> None:
    """Write a saved MODEL for other programs: as ONNX, or as Python that needs NumPy alone.

    Beside model.onnx stands its certificate, model.json: digests, a few samples with the model's outputs, and how far
    those of onnxruntime are from them, where that is installed. `dist-relu verify model.onnx` compares anew.
    model.py has a function forward(x), and the parameters in it.

    Example: dist-relu export model.safetensors --to model.onnx
    """
    check_writable("--to", output)
    if output.suffix not in (".onnx", ".py"):
        raise click.UsageError(f"--to {output}: expected a name that ends in .onnx or .py.")
    model = load_model(model_file(model_path))
    with usage_errors():
        if output.suffix == ".py":
            write_file(output, numpy_source(model, f"The model of {model_path.name}, of dist_relu"))
        else:
            _export_onnx(model, output)


def _export_onnx(model: Sequential, output: Path) -> None:
    from dist_relu.integrations import onnx

    certificate = onnx.export_model(model, output)
    ran = "not run: onnxruntime is not installed, or has not all of its operators for this type"
    if certificate.onnxruntime is not None:
        ran = f"outputs of onnxruntime {certificate.onnxruntime} differ by {certificate.largest_difference:.2g} at most"
    click.echo(f"{output}: parameters {certificate.params_sha256[:16]}, {ran}")
