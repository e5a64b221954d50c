"""`dist-relu bench all`: what decides about speed, measured in one go and written to a file."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

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
from dist_relu.cli.measured import tell_last
from dist_relu.cli.progress import StatusLine
from dist_relu.cli.types import FILE
from dist_relu.core import machine
from dist_relu.core.files import append_to_file, write_file

if TYPE_CHECKING:
    from dist_relu.bench.parallel import Comparison
    from dist_relu.scaling import Row

T = TypeVar("T")

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

    def tell(tables: Sequence[Table], is_complete: bool) -> None:
        for table in tables:
            show(table, is_complete=is_complete)
            append_to_file(output, f"\n{as_markdown(table)}")

    try:
        with StatusLine(Console(stderr=True)) as status:
            for tables in _tables(rounds, status.phase):
                tell_last(tables, tell, output)
    except BaseException:
        append_to_file(output, "\nIncomplete: it was ended before all was measured.\n")
        raise


def _tables(rounds: int, tell: Callable[[str], object]) -> Iterator[Iterator[list[Table]]]:
    """Measure one thing after another, each with the tables of what was measured so far."""
    from dist_relu.bench import learning, parallel, products, starting, step, sums, watching
    from dist_relu.bench.cases import CASES
    from dist_relu.bench.instruction_sets import TITLES, available

    sets = available() or ["native"]
    yield (
        [instruction_sets_table(each)]
        for each in _joined({TITLES.get(name, name): step.run(CASES, step.PEERS, rounds, name, tell) for name in sets})
    )
    tell("products")
    yield ([products_table([*each.values()])] for each in _joined({name: products.run(rounds, name) for name in sets}))
    if machine.num_cores() > 1:
        chosen = [case for case in CASES if case.name in parallel.CASES]
        compared: list[parallel.Comparison] = []
        yield map(parallel_tables, _kept(parallel.run(chosen, parallel.PEERS, 2, rounds, 1, tell), compared))
        tell("scaling")
        yield ([scaling_table(rows)] for rows in _scaling(compared[-1], (rounds + 1) // 2))
        if find_spec("mpi4py"):
            tell("comm")
            yield ([sums_table(timings)] for timings in sums.of_job(2))
        tell("rl")
        yield ([learning_table(one)] for one in learning.run(2, (rounds + 1) // 2, 100_000))
    tell("watching")
    yield ([watching_table(results)] for results in watching.run(1, rounds))
    tell("start")
    yield ([starting_table(results)] for results in starting.run((rounds + 1) // 2))


def _joined(results: Mapping[str, Iterator[T]]) -> Iterator[dict[str, T]]:
    """Go through one after another, with the last of each that was gone through."""
    found: dict[str, T] = {}
    for name, each in results.items():
        for result in each:
            found[name] = result
            yield {**found}


def _kept(results: Iterator[T], kept: list[T]) -> Iterator[T]:
    for result in results:
        kept.append(result)
        yield result


def _scaling(compared: Comparison, rounds: int) -> Iterator[dict[str, Row]]:
    """Measure the same cases on several workers and on one, as `dist-relu scale` does; with all rows after each."""
    from dist_relu.bench.cases import CASES, LR, MOMENTUM
    from dist_relu.bench.networks import dataset, network
    from dist_relu.optim import SGD
    from dist_relu.scaling import experiment, strong

    cases = {case.name: case for case in CASES}
    rows: dict[str, Row] = {}
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
        yield {**rows}


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
