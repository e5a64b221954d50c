"""`dist-relu bench all`: what decides about speed, measured in one go and written to a file."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from datetime import date
from importlib import metadata
from pathlib import Path

import click
from llvmlite import binding
from rich.console import Console
from rich.table import Table

from dist_relu.cli.bench_tables import (
    as_markdown,
    instruction_sets_table,
    learning_table,
    products_table,
    scaling_table,
    show,
    starting_table,
    step_table,
    watching_table,
)
from dist_relu.cli.common import check_peer_installed, check_writable
from dist_relu.cli.progress import StatusLine
from dist_relu.cli.types import FILE
from dist_relu.core import machine
from dist_relu.core.files import append_to_file, write_file

_PACKAGES = ("numpy", "numba", "torch", "jax")


@click.command("all")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="The number of repetitions; 5 take about ten minutes.",
)
@click.option(
    "--output", metavar="FILE", type=FILE, default="bench.md", show_default=True, help="Write the tables to FILE."
)
def everything(rounds: int, output: Path) -> None:
    """What decides about speed: steps, products, several workers, learning, watching, starting.  Needs an idle machine.

    Tables are written to a Markdown file as they come, below what was measured, where and when; "of peak" and "at most"
    are told by bench step --help.
    """
    check_writable("--output", output)
    for package in ("torch", "jax"):
        check_peer_installed("bench all", package)
    write_file(output, _heading(rounds))
    with StatusLine(Console(stderr=True)) as status:
        for table in _tables(rounds, status.phase):
            show(table)
            append_to_file(output, f"\n{as_markdown(table)}")


def _tables(rounds: int, tell: Callable[[str], object]) -> Iterator[Table]:
    from dist_relu.bench import learning, products, scaling, starting, step, watching
    from dist_relu.bench.instruction_sets import TITLES, available

    sets = available() or ["native"]
    cases = step.cases_named([], 1)
    comparisons = {TITLES.get(name, name): step.run(cases, step.PEERS, rounds, name, 1, tell) for name in sets}
    yield instruction_sets_table(comparisons)
    tell("products")
    yield products_table([products.run(rounds, name) for name in sets])
    if machine.num_cores() > 1:
        yield step_table(step.run(step.cases_named([], 2), step.PEERS, rounds, "native", 2, tell))
        tell("scaling")
        yield scaling_table(scaling.run(2, rounds))
        tell("rl")
        yield learning_table(learning.run(2, (rounds + 1) // 2, 100_000))
    tell("watching")
    yield watching_table(watching.run(1, rounds))
    tell("start")
    yield starting_table(starting.run((rounds + 1) // 2))


def _heading(rounds: int) -> str:
    """Tell what was measured, where and when."""
    from dist_relu.bench.instruction_sets import TITLES, available

    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    missing = "".join(f" It has no {title}." for name, title in TITLES.items() if name not in available())
    return (
        f"`dist-relu bench all --rounds {rounds}`, {date.today().isoformat()}, commit {_commit()}: "
        f"{machine.cpu_name()} ({binding.get_host_cpu_name()}), {machine.num_cores()} cores, Python "
        f"{machine.versions()['python']}, {versions}.{missing}\n"
    )


def _commit() -> str:
    """Name the commit that this package is of, with a word when it was changed since."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
