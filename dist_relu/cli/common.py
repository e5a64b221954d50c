"""What commands share: options of workers and data, files that they read and write, and where they show progress."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, TypeVar, cast, final, get_args

import click
from rich.console import Console

from dist_relu.cli.types import DATA, DATA_FORMS, DURATION, WORKERS, OrAuto, choice
from dist_relu.coordinator import Coordinator, start
from dist_relu.core import files
from dist_relu.errors import (
    DistReluError,
    WriteError,
)
from dist_relu.reports.logs import MODEL_FILE
from dist_relu.runtime.backends import BACKENDS
from dist_relu.runtime.recovery import OnFailure

_log = logging.getLogger(__name__)

Command = TypeVar("Command", bound=Callable[..., Any])


_OF_OTHERS = {".pt", ".pth", ".ckpt", ".h5", ".keras", ".pkl", ".onnx", ".npz", ".npy"}
"""Ends of names of models in other libraries' forms."""


saved_model_argument = click.argument("model_path", metavar="MODEL", type=click.Path(exists=True, path_type=Path))

data_option = click.option(
    "--data",
    "source",
    type=DATA,
    metavar="DATA",
    default="digits",
    show_default=True,
    help=f"The data set: {DATA_FORMS}.",
)


WORKER_OPTIONS = (
    "workers",
    "backend",
    "threads_per_worker",
    "address",
    "spread",
    "on_failure",
    "max_restarts",
    "worker_timeout_s",
)
"""The parameters of `worker_options`."""


def worker_options(command: Command) -> Command:
    """The options of every command that starts workers."""
    return _worker_options(command, WORKERS, "")


def tuned_worker_options(command: Command) -> Command:
    """The same of one that can try how many are the fastest."""
    return _worker_options(command, OrAuto(WORKERS), " auto tries for some seconds how many are the fastest.")


def _worker_options(command: Command, workers: click.ParamType[Any], more_help: str) -> Command:
    for option in reversed(
        (
            click.option(
                "--workers",
                type=workers,
                metavar="N",
                help=(
                    "How many workers share the work, or on Ray 2:8 for as many as there is room for. Default: one for "
                    f"each core, all ranks, or all CPUs of Ray.{more_help}"
                ),
            ),
            click.option(
                "--backend",
                type=choice(["auto", *BACKENDS]),
                default="auto",
                show_default=True,
                help="What the workers are; auto is mpi under mpirun and local otherwise.",
            ),
            click.option(
                "--threads-per-worker",
                type=click.IntRange(1),
                default=1,
                show_default=True,
                help="Threads of BLAS, which only layers of your own may call; on Ray also the CPUs of each worker.",
            ),
            click.option(
                "--address",
                metavar="HOST:PORT",
                help="Join the Ray cluster at this address. Default: $RAY_ADDRESS, or the one on this machine.",
            ),
            click.option("--spread", is_flag=True, help="On Ray, use as many nodes as there are rather than few."),
            click.option(
                "--on-failure",
                type=choice(get_args(OnFailure)),
                default="replace",
                show_default=True,
                help="What is done when a worker dies: start another, let the others do its work, or stop.",
            ),
            click.option(
                "--max-restarts",
                type=click.IntRange(0),
                default=5,
                show_default=True,
                help="How often in a row workers may be lost, without a step in between, before training ends.",
            ),
            click.option(
                "--worker-timeout",
                "worker_timeout_s",
                type=DURATION,
                metavar="TIME",
                help="How long a worker may be stopped by a signal before it counts as lost.  [default: 20s]",
            ),
        )
    ):
        command = option(command)
    return command


@contextmanager
def started(**options: Any) -> Iterator[Coordinator]:
    """The workers that `worker_options` ask for."""
    with start(**options) as coordinator:
        yield coordinator


def wrote(attempts: files.Attempts, *paths: Path | None) -> str:
    """What there is of a command that was interrupted: "; wrote FILE, FILE", or nothing."""
    there = [str(path) for path in paths if path and path not in attempts.failed]
    return f"; wrote {', '.join(there)}" if there else ""


def model_file(path: Path) -> Path:
    """The model at `path`: a file, or the one in the folder of a run."""
    if path.is_dir():
        if not (path / MODEL_FILE).is_file():
            raise click.UsageError(
                f"{path} has no {MODEL_FILE}: expected a saved model, or the folder of a finished run."
            )
        return path / MODEL_FILE
    if path.suffix == ".onnx":
        raise click.UsageError(f"{path} is no saved model. Make one of it: dist-relu import {path} --save FILE.")
    return path


def check_installed(what: str, *modules: str) -> None:
    """Fail before the work rather than after it.  what: is it that needs modules of the extra `plot`."""
    for module in modules:
        if find_spec(module) is None:
            raise click.UsageError(f"{what} need {module}. Install it: pip install 'dist_relu[plot]'.")
        try:
            import_module(module)
        except Exception as error:  # whatever is wrong with it
            raise click.UsageError(
                f"{what} need {module}, which is installed but can't be imported: {type(error).__name__}: {error}."
            ) from None


def check_peer_installed(what: str, package: str) -> None:
    """Fail before the work rather than after it.  what: is it that needs a library to compare with."""
    if find_spec(package) is None:
        raise click.UsageError(f"{what} needs {package}. Install it: pip install 'dist_relu[peers]'.")


def check_writable(option: str, path: Path | None) -> None:
    """Fail before the work rather than after it."""
    if path is not None:
        with _usage_errors_of_writing(option):
            files.check_writable(path)


def check_model_path(path: Path | None) -> None:
    """As `check_writable` for --save; warns of a name that says it is another kind of file."""
    check_writable("--save", path)
    if path and path.suffix in _OF_OTHERS:
        _log.warning(f"warning: --save {path}: the file will be safetensors, whatever its name; .safetensors says so.")


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


@final
class LastingOutput(io.TextIOBase):
    """Standard output, on which a run does not depend: attempts tell when a disk is full, and the run goes on."""

    def __init__(self, attempts: files.Attempts) -> None:
        self._stream, self._attempts = sys.stdout, attempts

    def write(self, text: str) -> int:
        with self._attempts.writing("standard output"):
            try:
                self._stream.write(text)
                self._stream.flush()
            except BrokenPipeError:
                raise
            except OSError as error:
                raise WriteError(f"Standard output can't be written: {error.strerror}.") from error
        return len(text)


def run_console(attempts: files.Attempts, *, quiet: bool) -> Console:
    """Where a command tells how its run is getting on."""
    file = None if sys.stdout.isatty() else cast("IO[str]", LastingOutput(attempts))
    return Console(quiet=quiet, file=file)


def tell_left_out(folder: Path, left_out: Sequence[str]) -> None:
    """Say what of a log folder is damaged."""
    for each in left_out:
        click.echo(f"Left out, since it is damaged: {folder / each}.", err=True)


@contextmanager
def usage_errors() -> Iterator[None]:
    """What is wrong with the user's options comes as ValueError from the objects that they become."""
    try:
        yield
    except DistReluError:  # which say by themselves what they are
        raise
    except ValueError as error:
        raise click.UsageError(str(error)) from None
