"""What commands share: the options of workers, and how they end and tell what went wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, final

import click

from dist_relu import files
from dist_relu.backends import BACKENDS, serve_if_rank
from dist_relu.checks import Check, check_not_negative, check_positive, check_probability, check_share
from dist_relu.errors import DistReluError, TrainingDiverged, WorkerLost, WriteError

Command = TypeVar("Command", bound=Callable[..., Any])


@final
class Number(click.types.FloatParamType):
    """A real number that passes one of `dist_relu.checks`, which NaN never does."""

    def __init__(self, check: Check) -> None:
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        try:
            return float(self._check("", number))
        except ValueError as error:
            self.fail(f"{value} {str(error).rpartition(': ')[2]}", param, ctx)


POSITIVE, NOT_NEGATIVE = Number(check_positive), Number(check_not_negative)
SHARE, PROBABILITY = Number(check_share), Number(check_probability)

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def run_program(
    program: click.Command, arguments: Sequence[str] | None = None, *, name: str | None = None, serves: bool = True
) -> None:
    """Run a command line and exit; what goes wrong is told in one line.

    name: of the program, by default that of the script.  serves: under mpirun only rank 0 runs it; the others serve it.
    """
    try:
        if serves:
            serve_if_rank()
        program.main(args=arguments, prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        _fail(name, error.format_message(), EXIT_USAGE)
    except (TrainingDiverged, WorkerLost, WriteError) as error:
        _fail(name, str(error), EXIT_FAILED)
    except DistReluError as error:
        _fail(name, str(error), EXIT_USAGE)
    except MemoryError as error:
        _fail(name, str(error) or "out of memory.", EXIT_FAILED)
    except (KeyboardInterrupt, click.Abort):
        _fail(name, "interrupted.", EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader of a pipe went away, which is its right
        sys.exit(EXIT_FAILED)
    except OSError as error:
        _fail(name, str(error), EXIT_FAILED)


def _fail(name: str | None, message: str, code: int) -> None:
    print(f"{name or Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(code)


data_option = click.option(
    "--data",
    "source",
    default="digits",
    show_default=True,
    help="digits, mnist, adding:STEPS, a folder or .npz file.",
)


def worker_options(command: Command) -> Command:
    """The options of every command that starts workers."""
    for option in reversed(
        (
            click.option(
                "--workers", type=click.IntRange(1), help="Default: one for each core, all ranks, or Ray's CPUs."
            ),
            click.option(
                "--backend",
                type=click.Choice(["auto", *BACKENDS]),
                default="auto",
                show_default=True,
                help="auto: mpi under mpirun, otherwise local.",
            ),
            click.option(
                "--threads-per-worker",
                type=click.IntRange(1),
                default=1,
                show_default=True,
                help="For BLAS, which only models of your own call.",
            ),
            click.option(
                "--address", metavar="HOST:PORT", help="Of a Ray cluster. Default: $RAY_ADDRESS, or this machine's."
            ),
            click.option("--spread", is_flag=True, help="On Ray: workers on as many nodes as there are, not on few."),
        )
    ):
        command = option(command)
    return command


def check_installed(what: str, *modules: str) -> None:
    """Fail before the work rather than after it.  what: is it that needs modules of the extra `plot`."""
    for module in modules:
        if find_spec(module) is None:
            raise click.UsageError(f"{what} need {module}. Install it: pip install 'dist_relu[plot]'.")


def check_writable(option: str, path: Path | None) -> None:
    """Fail before the work rather than after it."""
    if path is not None:
        with _usage_errors_of_writing(option):
            files.check_writable(path)


def make_folder(option: str, folder: Path) -> None:
    """Make a folder for results, before the work rather than after it."""
    with _usage_errors_of_writing(option):
        files.make_folder(folder)


@contextmanager
def _usage_errors_of_writing(option: str) -> Iterator[None]:
    try:
        yield
    except WriteError as error:
        raise click.UsageError(f"{option} {error}") from None


def new_attempts() -> files.Attempts:
    """To write the results of a command with, each of which is worth having without the others."""
    return files.Attempts(lambda message: click.echo(f"Warning: {message}", err=True))


@contextmanager
def usage_errors() -> Iterator[None]:
    """What is wrong with the user's options comes as ValueError from the objects that they become."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from None
