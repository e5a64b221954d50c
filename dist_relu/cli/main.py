"""The command line: `dist-relu train`, `evaluate`, `predict`, `summary`, `rl`, `analyze`, `plot`, `report`, and others.

Options become objects in the modules of the commands and in `options`; everything below takes objects. What the user
did wrong is told in one line, with exit code 2; a run that failed, in one line with exit code 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from dist_relu.cli.commands import Commands
from dist_relu.cli.running import command_of, run_program

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
    "Train and use networks": {
        "train": "Train a network and test it on unseen samples.",
        "evaluate": "Test a saved MODEL on the unseen samples of a data set.",
        "predict": "Print what a saved MODEL says of each of the SAMPLES, a line each: its class, or the numbers of a "
        "regression.",
        "serve": "Serve predictions of a saved MODEL over HTTP, until it is interrupted.",
        "summary": "Print the layers of a model for a data set: their output shapes, parameters and bytes.",
        "export": "Write a saved MODEL for other programs: as ONNX, or as Python that needs NumPy alone.",
        "import": "Make a saved model of a FILE of another library: ONNX, or PyTorch's weights as safetensors.",
        "verify": "Run an ONNX FILE, and compare with the outputs that its certificate has.",
        "rl": "Let a policy learn in an environment, and play fresh episodes with it.",
        "launch": "Run a command on the ranks of an MPI job, and start it again when a rank was lost.",
    },
    "Look at what they do": {
        "analyze": "Measure what a network does: activations, dead units, the flow of gradients through layers and "
        "time.",
        "plot": "Draw pictures of what `analyze` and `train --log-dir` have written.",
        "report": "Write what is known of a RUN as one page, with all pictures in it.",
        "replay": "Say where early stopping would have ended a RUN that went on for longer.",
        "reproduce": "Run a run again, and tell whether it has the same bits.",
        "at": "Write the model of a run as it was after any of its steps.",
    },
    "This machine": {
        "status": "Show your jobs on this machine, and what their workers do at the moment.",
        "doctor": "Check whether training will work here, and how well.",
        "scale": "Measure how training scales over numbers of workers, with 95 % intervals.",
        "forecast": "Forecast how training would scale over nodes that nobody has.",
        "what-if": "Train with and without each change, and show what it does to accuracy, time and gradients.",
        "bench": "Measure speed, always side by side with something else.",
        "completion": "Print a script that lets a shell complete dist-relu's commands, options, names and files.",
    },
}
"""What the commands do, as their own help says, too: to import them all takes a second."""


def load(arguments: Sequence[str] | None = None) -> None:
    """Import the command that the arguments begin with, which may take a while."""
    command_of(program, sys.argv[1:] if arguments is None else arguments)


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
