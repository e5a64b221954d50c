"""What commands share: the options of workers, and how they tell what is wrong with what the user gave."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from dist_relu.backends import BACKENDS

Command = TypeVar("Command", bound=Callable[..., Any])


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


def check_writable(option: str, path: Path | None) -> None:
    """Fail before the work rather than after it."""
    if path is None:
        return
    if not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise click.UsageError(f"{option} {path}: the folder {path.parent} does not exist or can't be written to.")


@contextmanager
def usage_errors() -> Iterator[None]:
    """What is wrong with the user's options comes as ValueError from the objects that they become."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from None
