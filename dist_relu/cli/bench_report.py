"""`dist-relu bench all`: what decides about speed, measured in one go and written to a file."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import date
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click
from llvmlite import binding
from rich.console import Console
from rich.table import Table

from dist_relu.cli.bench_tables import (
    as_markdown,
    instruction_sets_table,
    learning_table,
    parallel_tables,
    products_table,
    scaling_table,
    show,
    starting_table,
    sums_table,
    watching_table,
)
from dist_relu.cli.common import check_peer_installed, check_writable
from dist_relu.cli.progress import StatusLine
from dist_relu.cli.types import FILE
from dist_relu.core import machine
from dist_relu.core.files import append_to_file, write_file

if TYPE_CHECKING:
    from dist_relu.bench.parallel import Comparison
    from dist_relu.scaling import Row

_PACKAGES = ("numpy", "numba", "torch", "jax", "scikit-learn")
_SCALING_S = 0.5
"""So long each measurement of how steps scale trains, behind as many steps, or `_WARM_UP`."""
_WARM_UP = 10


@click.command("all")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="The number of repetitions; 5 take about a quarter of an hour.",
)
@click.option(
    "--output", metavar="FILE", type=FILE, default="bench.md", show_default=True, help="Write the tables to FILE."
)
def everything(rounds: int, output: Path) -> None:
    """What decides about speed: steps, products, several workers, sums, learning, starting.  Needs an idle machine.

    Tables are written to a Markdown file as they come, below what was measured, where and when; "of peak" and "at most"
    are told by bench step --help.
    """
    check_writable("--output", output)
    for package in ("torch", "jax", "sklearn"):
        check_peer_installed("bench all", package)
    write_file(output, _heading(rounds))
    with StatusLine(Console(stderr=True)) as status:
        for table in _tables(rounds, status.phase):
            show(table)
            append_to_file(output, f"\n{as_markdown(table)}")


def _tables(rounds: int, tell: Callable[[str], object]) -> Iterator[Table]:
    from dist_relu.bench import learning, parallel, products, starting, step, sums, watching
    from dist_relu.bench.cases import CASES
    from dist_relu.bench.instruction_sets import TITLES, available

    sets = available() or ["native"]
    comparisons = {TITLES.get(name, name): step.run(CASES, step.PEERS, rounds, name, tell) for name in sets}
    yield instruction_sets_table(comparisons)
    tell("products")
    yield products_table([products.run(rounds, name) for name in sets])
    if machine.num_cores() > 1:
        chosen = [case for case in CASES if case.name in parallel.CASES]
        compared = parallel.run(chosen, parallel.PEERS, 2, rounds, 1, tell)
        yield from parallel_tables(compared)
        tell("scaling")
        yield scaling_table(_scaling(compared, (rounds + 1) // 2))
        if find_spec("mpi4py"):
            tell("comm")
            yield sums_table(sums.of_job(2))
        tell("rl")
        yield learning_table(learning.run(2, (rounds + 1) // 2, 100_000))
    tell("watching")
    yield watching_table(watching.run(1, rounds))
    tell("start")
    yield starting_table(starting.run((rounds + 1) // 2))


def _scaling(compared: Comparison, rounds: int) -> dict[str, Row]:
    """Measure the same cases on several workers and on one, as `dist-relu scale` does."""
    from dist_relu.bench.cases import CASES, LR, MOMENTUM
    from dist_relu.bench.networks import dataset, network
    from dist_relu.optim import SGD
    from dist_relu.scaling import experiment, strong

    cases, rows = {case.name: case for case in CASES}, {}
    for one in compared.cases:
        case = cases[one.timing.case]
        points = strong([case.name], [1, compared.workers], batch_sizes=[case.batch_size])
        steps = max(round(_SCALING_S * 1e3 / one.timing.ours_ms), 3)
        with tempfile.TemporaryDirectory() as folder:
            found = experiment(
                {case.name: network(case)},
                dataset(case),
                SGD(LR, momentum=MOMENTUM),
                points=points,
                folder=folder,
                steps=steps,
                warm_up=min(steps, _WARM_UP),
                repetitions=rounds,
            )
        _, rows[case.name] = found.rows()
    return rows


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
