"""What the scripts of the papers share: options, a table beside the paper's numbers, and the verdict on its claims."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Self, final

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from dist_relu import start
from dist_relu.cli.common import check_installed, make_folder, new_attempts, worker_options
from dist_relu.cli.progress import RunsDisplay
from dist_relu.cli.running import run_program
from dist_relu.coordinator import Coordinator
from dist_relu.core.files import write_json
from dist_relu.data import Dataset, Split, load
from dist_relu.engine.results import Evaluation, FitResult
from dist_relu.engine.watch.records import EpochSummary
from dist_relu.nn import Sequential
from dist_relu.optim import Optimizer
from dist_relu.reports.plots.style import SUFFIXES

Rows = Sequence[Sequence[str]]

_WIDTH = 120
"""Of what goes into a file or a pipe, in characters."""

_QUANTILES = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""Of Student's t distribution, at 97.5 %, by degrees of freedom: the number of seeds less one."""


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, whether it showed itself here, and the figures that say so."""

    statement: str
    shown: bool
    figures: str


@dataclass(frozen=True)
class Findings:
    """What a script found.

    rows: a table under `columns`, our numbers beside the paper's.  draw: writes the picture to a path.
    numbers: whatever else is worth keeping, as JSON, under other names than those of the rest of the file.
    """

    columns: Sequence[str]
    rows: Rows
    claims: Sequence[Claim]
    draw: Callable[[Path], None]
    numbers: dict[str, Any] = field(default_factory=dict)


def images(quick: bool) -> Split:
    """MNIST, or a few small digits where all that counts is whether a script works."""
    return load("digits" if quick else "mnist")


def colour_images(quick: bool, num_train: int) -> Split:
    """CIFAR-10 with the first so many samples to train on, or digits as `images` has them."""
    if quick:
        return images(quick)
    whole = load("cifar10")
    train = whole.train
    first = Dataset(train.x[:num_train], train.y[:num_train], train.image_shape, train.classes)
    return Split(first, whole.test)


def error(seen: Evaluation | EpochSummary) -> float:
    """The share in % that was not classified right."""
    assert seen.accuracy is not None
    return 100 * (1 - seen.accuracy)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The mean of what several seeds came to, the lowest and the highest."""
    mean = sum(values) / len(values)
    return f"{mean:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def of_seeds(values: Sequence[object]) -> str:
    """Words for what is compared: one value a seed, or their means."""
    return f"as a mean of {len(values)} seeds" if len(values) > 1 else "with one seed"


def clearly_lower(ours: Sequence[float], others: Sequence[float]) -> bool:
    """Whether ours are lower than the others from the same seeds: by Student's paired t test, one-sided, at 2.5 %."""
    mean, deviation = lower_by(ours, others)
    return mean > _QUANTILES[len(ours) - 1] * deviation


def lower_by(ours: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """By how much ours are lower than the others from the same seeds: the mean, and its standard error."""
    differences = np.subtract(others, ours)
    return float(differences.mean()), float(differences.std(ddof=1)) / len(ours) ** 0.5


@final
class Trials:
    """Trains the networks of a script, and tells which of its runs it is at.

    coordinator: for what is no training.  Use as a context manager.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self._stack = ExitStack()

    def expect(self, num_runs: int) -> None:
        """So many times `fit` is going to be called."""
        self._display = self._stack.enter_context(RunsDisplay(Console(), num_runs))

    def fit(self, what: str, model: Sequential, data: Dataset, optimizer: Optimizer, **options: Any) -> FitResult:
        """As `Coordinator.fit`.  what: it is, for whoever waits."""
        self._display.begin(what)
        return self.coordinator.fit(model, data, optimizer, on_progress=self._display.show, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def paper(name: str, reproduce: Callable[[Trials, bool, int], Findings], about: str) -> None:
    """The command line of a paper's script.

    name: of the files that it writes.  reproduce(trials, quick, seed): runs the experiment; a quick one is there
    to see that the script works, and shows nothing.  about: the docstring of the script.
    """

    @click.command(help="\b\n" + about, context_settings={"help_option_names": ["-h", "--help"]})
    @click.option("--seed", type=click.IntRange(0, 2**32), default=0, show_default=True, help="The first one.")
    @click.option("--quick", is_flag=True, help="See in seconds whether the script works; its figures show nothing.")
    @click.option(
        "--output",
        type=click.Path(file_okay=False, path_type=Path),
        default="papers",
        show_default=True,
        help=f"The folder for {name}.json and the picture, {name}{', '.join(SUFFIXES)}.",
    )
    @worker_options
    def command(seed: int, quick: bool, output: Path, **workers: Any) -> None:
        check_installed("Pictures", "matplotlib")
        make_folder("--output", output)
        began = perf_counter()
        with start(**workers) as coordinator:
            with Trials(coordinator) as trials:
                findings = reproduce(trials, quick, seed)
            seconds = perf_counter() - began
            print_findings(about.splitlines()[0], findings, seconds, coordinator, gives_verdicts=not quick)
        if quick:
            click.echo("A quick run: its figures show nothing, so there are no verdicts on the paper's claims.")
        content = {"seed": seed, "quick": quick, "seconds": seconds, "columns": findings.columns}
        content |= {"rows": findings.rows, "claims": list(map(asdict, findings.claims))}
        assert not content.keys() & findings.numbers.keys()
        content |= findings.numbers
        attempts = new_attempts()
        with attempts.writing(output / f"{name}.json"):
            write_json(output / f"{name}.json", content)
        for suffix in SUFFIXES:
            with attempts.writing(output / f"{name}{suffix}"):
                findings.draw(output / f"{name}{suffix}")
        attempts.check()

    run_program(command)


def print_findings(
    title: str, findings: Findings, seconds: float, coordinator: Coordinator, *, gives_verdicts: bool
) -> None:
    table = Table(*findings.columns, title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in findings.rows:
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    console.print(table)
    for claim in findings.claims if gives_verdicts else ():
        verdict = "SHOWN" if claim.shown else "NOT SHOWN"
        console.print(f"{verdict}: {claim.statement} ({claim.figures})", highlight=False, soft_wrap=True)
    workers = f"{coordinator.workers} worker{'s' * (coordinator.workers > 1)} ({coordinator.backend})"
    console.print(f"{seconds:.0f} s with {workers}.", highlight=False)
