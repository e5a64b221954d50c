"""`dist-relu import`: a model of another library."""

from __future__ import annotations

from pathlib import Path

import click

from dist_relu.checkpoint import save_model
from dist_relu.cli.common import check_model_path
from dist_relu.cli.types import FILE


@click.command("import")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--save", metavar="FILE", type=FILE, required=True, help="Where the model goes, as safetensors.")
@click.option(
    "--output", metavar="NAME", help="Which output the model has, where a graph has several. Default: that of numbers."
)
def import_(path: Path, save: Path, output: str | None) -> None:
    """Make a saved model of a FILE of another library: ONNX, or PyTorch's weights as safetensors.

    ONNX comes from torch.onnx.export, skl2onnx, tf2onnx and others. The model takes the samples that the graph takes;
    what no layer here does is an error that names the node.

    Example: dist-relu import network.onnx --save model.safetensors
    """
    from dist_relu.integrations import onnx

    check_model_path(save)
    model = onnx.import_model(path, output=output)
    save_model(model, save)
    click.echo(f"{save}: {len(model.layers)} layers, {model.num_params:,} parameters, {model.sha256()[:16]}")
