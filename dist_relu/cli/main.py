"""The command line: `dist-relu train | evaluate | predict | summary | rl | analyze | plot | report | bench | doctor`.

Options become objects in the modules of the commands and in `options`; everything below takes objects. What the user
did wrong is told in one line, with exit code 2; a run that failed, in one line with exit code 1.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from dist_relu.checkpoint import load_model
from dist_relu.cli.analyze import analyze
from dist_relu.cli.bench import bench
from dist_relu.cli.common import (
    check_writable,
    data_option,
    model_file,
    run_program,
    started,
    usage_errors,
    worker_options,
)
from dist_relu.cli.completion import completion
from dist_relu.cli.doctor import doctor
from dist_relu.cli.options import dtype_option, model_option
from dist_relu.cli.parsing import parse_model
from dist_relu.cli.plot import plot
from dist_relu.cli.report import report
from dist_relu.cli.rl import learn
from dist_relu.cli.train import tested, train
from dist_relu.cli.types import FILE, Commands, json_option
from dist_relu.core.files import write_file, write_json
from dist_relu.data import load, load_samples
from dist_relu.nn import PolicyHead, Sequential, summary

_EXAMPLES = """
\b
Examples:
  dist-relu train --data digits --save model.safetensors
  dist-relu evaluate model.safetensors --data digits
  dist-relu train --log-dir runs/a && dist-relu report runs/a
  dist-relu doctor

`dist-relu COMMAND --help` explains a command. Exit codes: 0 success, 1 a run that failed, 2 a command line that makes
no sense, 130 Ctrl-C, 143 SIGTERM.
"""

_SECTIONS = {
    "Train and use networks": ("train", "evaluate", "predict", "summary", "rl"),
    "Look at what they do": ("analyze", "plot", "report"),
    "This machine": ("doctor", "bench", "completion"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.  Under mpirun only rank 0 does; the others serve it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # doctor speaks with the ranks in its own way
    run_program(program, arguments, name="dist-relu", serves=list(arguments[:1]) != ["doctor"])


@click.group(
    cls=Commands, sections=_SECTIONS, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXAMPLES
)
@click.version_option(package_name="dist_relu")
def program() -> None:
    """Train ReLU networks data-parallel, with the same bits on any number of workers."""


saved_model_argument = click.argument("model_path", metavar="MODEL", type=click.Path(exists=True, path_type=Path))


@program.command("summary")
@data_option
@model_option
@dtype_option
def show_summary(source: str, model_text: str, dtype: str | None) -> None:
    """Print the layers of a model for a data set: their output shapes, parameters and bytes."""
    with usage_errors():
        data = load(source)
        click.echo(summary(parse_model(model_text, data, dtype).build(data.train.x.shape[1:])))


@program.command()
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
    if path:
        numbers = {"loss": test.loss, "accuracy": test.accuracy, "samples": test.num_samples}
        write_json(path, {"model": str(model_path), "data": source, **numbers})


@program.command()
@saved_model_argument
@click.argument("samples_path", metavar="SAMPLES", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--output", metavar="FILE", type=FILE, help="Write the model's raw outputs to FILE.npy instead.")
@worker_options
def predict(model_path: Path, samples_path: Path, output: Path | None, **options: Any) -> None:
    """Print what a saved MODEL says of each of the SAMPLES, a line each: its class, or the numbers of a regression.

    MODEL is a file that `train --save` wrote, or the folder of a run that `train --log-dir` wrote. SAMPLES is a .npy
    file, or a .npz file with an array x; unsigned bytes in it are taken for images and divided by 255, as in training.
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
        for row in rows.argmax(axis=1, keepdims=True) if _tells_classes(model) else rows:
            click.echo(" ".join(map(str, row)))


def _tells_classes(model: Sequential) -> bool:
    """Whether the largest output is the class; of models that don't know what they predict, where it can be."""
    one_of_several = len(model.output_shape) == 1 and model.output_shape[0] > 1
    return one_of_several and model.predicts != "numbers" and not isinstance(model.layers[-1], PolicyHead)


program.add_command(train)
program.add_command(analyze)
program.add_command(bench)
program.add_command(completion)
program.add_command(doctor)
program.add_command(learn)
program.add_command(plot)
program.add_command(report)
