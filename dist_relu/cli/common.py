"""What commands share: the options of workers, and how they end and tell what went wrong.

Exit codes: 0 for success, 1 for a run that failed, 2 for what the user asked wrongly, 130 after Ctrl-C and 143 after
SIGTERM.
"""

from __future__ import annotations

import io
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn, TextIO, TypeVar, cast, final

import click
from rich.console import Console

from dist_relu.cli.types import DATA, DATA_FORMS, choice
from dist_relu.coordinator import Coordinator, start
from dist_relu.core import files
from dist_relu.core.compiling import PROGRESS_LOG
from dist_relu.errors import (
    BackendError,
    DataWarning,
    DistReluError,
    TrainingDiverged,
    TrainingWarning,
    UnsuitableBackend,
    WriteError,
)
from dist_relu.reports.logs import MODEL_FILE
from dist_relu.runtime.backends import BACKENDS, is_under_mpirun, serve_if_rank

_log = logging.getLogger(__name__)

Command = TypeVar("Command", bound=Callable[..., Any])

_WARNINGS = (DataWarning, TrainingWarning)

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 130, 143

_OF_OTHERS = {".pt", ".pth", ".ckpt", ".h5", ".keras", ".pkl", ".onnx", ".npz", ".npy"}
"""Ends of names of models in other libraries' forms."""

_MEANT = {
    "--learning-rate": "--lr",
    "--learningrate": "--lr",
    "--batch": "--batch-size",
    "--wd": "--weight-decay",
    "--num-workers": "--workers",
    "--processes": "--workers",
    "--num-epochs": "--epochs",
    "--dataset": "--data",
    "--network": "--model",
    "--hidden": "--model mlp:UNITS,UNITS,...",
    "--layers": "--model mlp:UNITS,UNITS,...",
    "--units": "--model mlp:UNITS,UNITS,...",
    "--logs": "--log-dir",
    "--logdir": "--log-dir",
    "--out": "--save",
    "--activation": "`dist-relu analyze training --activation`, or a model of your own with --model file.py:function",
    "--init": "`dist-relu analyze training --init`, or a model of your own with --model file.py:function",
    "--depth": "`dist-relu analyze training --depth`, or --model mlp:UNITS,UNITS,...",
    "--seeds": "`dist-relu analyze training --seeds`, or several runs with --seed",
}
"""What those look for who write an option that a command does not have."""


class Interrupted(KeyboardInterrupt):
    """The user's Ctrl-C, with words about what is left."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


def run_program(
    program: click.Command, arguments: Sequence[str] | None = None, *, name: str | None = None, serves: bool = True
) -> None:
    """Run a command line and exit; what goes wrong is told in one line.

    name: of the program, by default that of the script.  serves: under mpirun only rank 0 runs it; the others serve it.
    """
    name = name or Path(sys.argv[0]).name
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = _command_of(program, arguments)
    try:
        with _told_in_lines(name, command), _sigterm_as_interrupt():
            if serves:
                serve_if_rank()
            program.main(args=arguments, prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(EXIT_USAGE)
    except click.NoSuchOption as error:
        _fail(name, _no_such_option(error), EXIT_USAGE)
    except click.ClickException as error:
        _fail(name, in_options(error.format_message(), command), EXIT_USAGE)
    except DistReluError as error:
        _fail(name, in_options(str(error), command), EXIT_FAILED if _is_failure(error) else EXIT_USAGE)
    except MemoryError as error:
        _fail(name, str(error) or "out of memory.", EXIT_FAILED)
    except (KeyboardInterrupt, click.Abort) as error:
        cause = error.__cause__ if isinstance(error, click.Abort) else error
        _fail(name, f"{_left_by(cause)}.", EXIT_TERMINATED if _is_terminated(cause) else EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader of a pipe went away, which is its right
        sys.exit(EXIT_FAILED)
    except OSError as error:
        _fail(name, str(error), EXIT_FAILED)


def _command_of(program: click.Command, arguments: Sequence[str]) -> click.Command:
    """The command that the arguments begin with."""
    for argument in arguments:
        if not isinstance(program, click.Group) or argument not in program.commands:
            break
        program = program.commands[argument]
    return program


def _is_failure(error: DistReluError) -> bool:
    """Whether a run failed, rather than that it was asked wrongly."""
    is_of_workers = isinstance(error, BackendError) and not isinstance(error, UnsuitableBackend)
    return is_of_workers or isinstance(error, TrainingDiverged | WriteError)


def in_options(message: str, command: click.Command) -> str:
    """What the library says of its arguments, with the names of the command's options."""
    for param in command.params:
        if isinstance(param, click.Option) and (name := str(param.name)) in message:
            option = param.opts[0]
            value = r"""["']?((?<=")[^"]*|(?<=')[^']*|[^\s,;:()"']+)["']?"""
            message = re.sub(rf"\b\w+\({name}={value}\):", rf"{option} \1:", message)
            message = re.sub(rf"(?<![\w.-]){name}={value}", rf"{option} \1", message)
            message = re.sub(rf"(?<![\w.-]){name} (?=[<>]=)", f"{option} ", message)
    return message


def _fail(name: str, message: str, code: int) -> NoReturn:
    print(f"{name}: error: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(code)


def _left_by(error: BaseException | None) -> str:
    return str(error) if isinstance(error, Interrupted) else "interrupted"


def _is_terminated(error: BaseException | None) -> bool:
    return error is not None and (isinstance(error, Terminated) or _is_terminated(error.__cause__))


def _no_such_option(error: click.NoSuchOption) -> str:
    meant = _MEANT.get(error.option_name)
    if meant is None:
        return error.format_message()
    return f"No such option: {error.option_name}. Did you mean {meant}?"


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does.  Under mpirun it ends the job, as always."""
    if threading.current_thread() is not threading.main_thread() or is_under_mpirun():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


@contextmanager
def _told_in_lines(name: str, command: click.Command) -> Iterator[None]:
    """Write what the library logs and warns of as lines of the program, each once, unless a command is to be quiet."""
    handler, log = _Lines(name, command), logging.getLogger("dist_relu")
    log.addHandler(handler)
    try:
        with warnings.catch_warnings():
            for kind in _WARNINGS:
                warnings.simplefilter("always", kind)
            show = warnings.showwarning

            def show_ours(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
                if issubclass(category, _WARNINGS):
                    handler.tell(f"warning: {message}")
                else:
                    show(message, category, *where, **more)

            warnings.showwarning = show_ours
            yield
    finally:
        log.removeHandler(handler)


@final
class _Lines(logging.Handler):
    """Lines on stderr, and on stdout where they tell of progress, each once."""

    def __init__(self, name: str, command: click.Command) -> None:
        super().__init__(logging.WARNING)
        self._name, self._command = name, command
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == PROGRESS_LOG:
            self.tell(record.getMessage(), sys.stdout, "")
        else:
            self.tell(record.getMessage())

    def tell(self, message: str, stream: TextIO | None = None, head: str | None = None) -> None:
        message = in_options(message, self._command)
        context = click.get_current_context(silent=True)
        if message in self._told or (context and context.params.get("quiet")):
            return
        self._told.add(message)
        head = f"{self._name}: " if head is None else head
        print(f"{head}{message}", file=stream or sys.stderr)


data_option = click.option(
    "--data",
    "source",
    type=DATA,
    metavar="DATA",
    default="digits",
    show_default=True,
    help=f"The data set: {DATA_FORMS}.",
)


def worker_options(command: Command) -> Command:
    """The options of every command that starts workers."""
    for option in reversed(
        (
            click.option(
                "--workers",
                type=click.IntRange(1),
                help="How many workers share the work. Default: one for each core, all ranks, or all CPUs of Ray.",
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
        )
    ):
        command = option(command)
    return command


@contextmanager
def started(**options: Any) -> Iterator[Coordinator]:
    """The workers that `worker_options` ask for."""
    with start(**options) as coordinator:
        if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL and not is_under_mpirun():
            signal.signal(signal.SIGTERM, _terminate)  # Ray has put a handler of its own there
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
    except ValueError as error:
        raise click.UsageError(str(error)) from None
