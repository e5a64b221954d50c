"""The command line: `dist-relu train`, `evaluate`, `predict`, `summary`, `rl`, `analyze`, `plot`, `report`, and others.

Options become objects in the modules of the commands and in `options`; everything below takes objects. What the user
did wrong is told in one line, with exit code 2; a run that failed, in one line with exit code 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from dist_relu.cli.analyze import analyze
from dist_relu.cli.at import at
from dist_relu.cli.bench import bench
from dist_relu.cli.completion import completion
from dist_relu.cli.doctor import doctor
from dist_relu.cli.evaluate import evaluate
from dist_relu.cli.launch import launch
from dist_relu.cli.learning_rate import learning_rate
from dist_relu.cli.plot import plot
from dist_relu.cli.predict import predict
from dist_relu.cli.replay import show_replay
from dist_relu.cli.report import report
from dist_relu.cli.reproduce import reproduce
from dist_relu.cli.rl import learn
from dist_relu.cli.running import run_program
from dist_relu.cli.status import status
from dist_relu.cli.summary import summary
from dist_relu.cli.train import train
from dist_relu.cli.types import Commands

_EXAMPLES = """
\b
Examples:
  dist-relu train --data digits --save model.safetensors
  dist-relu evaluate model.safetensors --data digits
  dist-relu train --log-dir runs/a && dist-relu report runs/a
  dist-relu doctor

`dist-relu COMMAND --help` explains a command. Exit codes: 0 success, 1 a run that failed, 2 a command line that makes
no sense, 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP.
"""

_SECTIONS = {
    "Train and use networks": ("train", "evaluate", "predict", "summary", "rl", "launch"),
    "Look at what they do": ("analyze", "plot", "report", "replay", "reproduce", "at"),
    "This machine": ("status", "doctor", "bench", "completion"),
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


program.add_command(train)
program.add_command(evaluate)
program.add_command(predict)
program.add_command(summary)
analyze.add_command(learning_rate)
program.add_command(analyze)
program.add_command(at)
program.add_command(bench)
program.add_command(completion)
program.add_command(doctor)
program.add_command(launch)
program.add_command(learn)
program.add_command(plot)
program.add_command(show_replay)
program.add_command(report)
program.add_command(reproduce)
program.add_command(status)
