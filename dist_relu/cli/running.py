"""How a command line runs and ends, and how it tells what went wrong: in one line.

Exit codes: 0 for success, 1 for a run that failed, 2 for what the user asked wrongly, 130 after Ctrl-C, 143 after
SIGTERM and 129 after SIGHUP.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TextIO, final

import click

from dist_relu.cli.signals import ending_signals
from dist_relu.core.launched import may_be_rank
from dist_relu.core.progress_log import PROGRESS_LOG
from dist_relu.errors import (
    BackendError,
    DataWarning,
    DistReluError,
    TrainingDiverged,
    TrainingWarning,
    UnsuitableBackend,
    WriteError,
)

_WARNINGS = (DataWarning, TrainingWarning)

EXIT_FAILED, EXIT_USAGE = 1, 2

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
    """Ctrl-C or another signal that ends a command, with words about what is left."""


def run_program(
    program: click.Command, arguments: Sequence[str] | None = None, *, name: str | None = None, serves: bool = True
) -> None:
    """Run a command line and exit; what goes wrong is told in one line.

    name: of the program, by default that of the script.  serves: under mpirun only rank 0 runs it; the others serve it.
    """
    name = name or Path(sys.argv[0]).name
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = command_of(program, arguments)
    with ending_signals() as signals:
        try:
            with _told_in_lines(name, command), signals.kept():
                if serves and may_be_rank():
                    from dist_relu.runtime.backends import serve_if_rank

                    serve_if_rank()
                program.main(args=arguments, prog_name=name, standalone_mode=False)
        except click.exceptions.Exit as end:
            sys.exit(end.exit_code)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(EXIT_USAGE)
        except click.NoSuchOption as error:
            _fail(name, _no_such_option(error), EXIT_USAGE)
        except click.MissingParameter as error:
            where = f" See {error.ctx.command_path} --help." if error.ctx else ""
            _fail(name, f"{error.format_message()}{where}", EXIT_USAGE)
        except click.ClickException as error:
            _fail(name, in_options(error.format_message(), command), EXIT_USAGE)
        except DistReluError as error:
            if signals.received and isinstance(error, BackendError):  # workers that got the signal, too
                _fail(name, "interrupted.", signals.exit_code)
            _fail(name, in_options(str(error), command), EXIT_FAILED if _is_failure(error) else EXIT_USAGE)
        except MemoryError as error:
            _fail(name, str(error) or "out of memory.", EXIT_FAILED)
        except (KeyboardInterrupt, click.Abort) as error:
            cause = error.__cause__ if isinstance(error, click.Abort) else error
            _fail(name, f"{_left_by(cause)}.", signals.exit_code)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader of a pipe went away, which is its right
            sys.exit(EXIT_FAILED)
        except OSError as error:
            _fail(name, str(error), EXIT_FAILED)


def command_of(program: click.Command, arguments: Sequence[str]) -> click.Command:
    """Find the command that the arguments begin with."""
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
            message = re.sub(rf"(?<![\w.-]){name} (?=[<>]=|was )", f"{option} ", message)
    return message


def _fail(name: str, message: str, code: int) -> NoReturn:
    print(f"{name}: error: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(code)


def _left_by(error: BaseException | None) -> str:
    return str(error) if isinstance(error, Interrupted) else "interrupted"


def _no_such_option(error: click.NoSuchOption) -> str:
    meant = _MEANT.get(error.option_name)
    if meant is None:
        return error.format_message()
    return f"No such option: {error.option_name}. Did you mean {meant}?"


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
