"""`dist-relu import`: a model of another library."""

from __future__ import annotations

from pathlib import Path

import click

from dist_relu.checkpoint import save_model
from dist_relu.cli.common import check_model_path, data_option, usage_errors
from dist_relu.cli.parsing import parse_model
from dist_relu.cli.types import FILE, MODEL, MODEL_FORMS
from dist_relu.core.untrusted import made, parse_json, read_file, reading
from dist_relu.data import load
from dist_relu.errors import DataError
from dist_relu.nn import Sequential

_MOST_BYTES = 2**22
"""Of a mapping."""


@click.command("import")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--save", metavar="FILE", type=FILE, required=True, help="Where the model goes, as safetensors.")
@click.option(
    "--output",
    metavar="NAME",
    help="Which output of ONNX the model has, where there are several. Default: that of numbers.",
)
@click.option(
    "--model",
    "model_text",
    type=MODEL,
    metavar="MODEL",
    help=f"The network that PyTorch's weights are for: {MODEL_FORMS}, or file.py:function.",
)
@data_option
@click.option(
    "--mapping",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='A JSON file with names of layers here and in PyTorch: {"0": "encoder"}. Default: by kind and shape.',
)
def import_(
    path: Path, save: Path, output: str | None, model_text: str | None, source: str, mapping: Path | None
) -> None:
    """Make a saved model of a FILE of another library: ONNX, or PyTorch's weights as safetensors.

    ONNX comes from torch.onnx.export, skl2onnx, tf2onnx and others. The model takes the samples that the graph takes;
    what no layer here does is an error that names the node.

    PyTorch's weights, as safetensors.torch.save_file(network.state_dict(), FILE) writes them, need --model, and for
    the shape of its samples --data.

    \b
    Examples:
      dist-relu import network.onnx --save model.safetensors
      dist-relu import weights.safetensors --model mlp:64 --data digits --save model.safetensors
    """
    check_model_path(save)
    is_onnx = path.suffix == ".onnx"
    if not is_onnx and model_text is None:
        raise click.UsageError(f"{path}: weights of PyTorch need --model. A graph's name should end in .onnx.")
    if is_onnx and (model_text or mapping):
        raise click.UsageError("--model and --mapping are for PyTorch's weights; an ONNX file has layers of its own.")
    if not is_onnx and output:
        raise click.UsageError("--output is for ONNX; weights have none.")
    model = _weights(path, model_text, source, mapping) if model_text else _graph(path, output)
    save_model(model, save)
    click.echo(f"{save}: {len(model.layers)} layers, {model.num_params:,} parameters, {model.sha256()[:16]}")


def _graph(path: Path, output: str | None) -> Sequential:
    from dist_relu.integrations import onnx

    return onnx.import_model(path, output=output)


def _weights(path: Path, model_text: str, source: str, mapping: Path | None) -> Sequential:
    from dist_relu.integrations.torch_weights import load_state_dict

    names = None
    if mapping is not None:
        with reading(mapping, DataError, "a mapping"):
            names = made(dict[str, str], parse_json(read_file(mapping, _MOST_BYTES)))
    with usage_errors():
        data = load(source)
        model = parse_model(model_text, data, None).build(data.train.sample_shape)
        return load_state_dict(model, path, names)
