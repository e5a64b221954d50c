"""`dist-relu verify`: whether an ONNX file does what its certificate says."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def verify(path: Path) -> None:
    """Run an ONNX FILE, and compare with the outputs that its certificate has.

    The certificate is the .json file beside it, as `dist-relu export` writes it. The exit code is 1 when the file is
    another one, or gives other outputs. Needs onnxruntime.

    Example: dist-relu verify model.onnx
    """
    from dist_relu.integrations import onnx

    difference = onnx.verify(path)
    click.echo(f"{path}: as its certificate says; outputs differ by {difference:.2g} at most")
