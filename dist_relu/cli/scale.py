"""`dist-relu scale`: how training scales over workers, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dist_relu.cli.common import data_option, make_folder, new_attempts, usage_errors
from dist_relu.cli.options import dtype_option, momentum_option, optimizer_option
from dist_relu.cli.parsing import OPTIMIZERS, parse_new_model, parse_sizes, parse_words
from dist_relu.cli.progress import StatusLine
from dist_relu.cli.running import Interrupted
from dist_relu.cli.tables import print_table
from dist_relu.cli.types import FOLDER, INPUT_FILE, MODEL, MODEL_FORMS, SEED, GroupedCommand, SomeNames
from dist_relu.data import load
from dist_relu.launch.hosts import parse_hosts, read_hosts
from dist_relu.optim import Constant
from dist_relu.reports.plots import ScalingCurve, draw_scaling
from dist_relu.reports.plots.style import COLUMN, PLAIN
from dist_relu.scaling import (
    Experiment,
    Interval,
    Measurement,
    Placement,
    Point,
    Profile,
    Row,
    experiment,
    profiles,
    strong,
    weak,
)
from dist_relu.scaling.experiment import read_measurements
from dist_relu.scaling.formats import curves_of, series_of, write_formats
from dist_relu.scaling.grid import check_batch
from dist_relu.scaling.intervals import ENOUGH_REPETITIONS

_BACKENDS = ("local", "mpi", "ray")
"""Those with several workers."""

_PICTURES = {"scaling.png": PLAIN, "scaling.pdf": COLUMN}


@click.command(
    cls=GroupedCommand,
    epilog="\b\nExamples:\n"
    "  dist-relu scale --workers 1,2,4 --model mlp:1024,1024 --batch-size 256 --output scaling\n"
    "  dist-relu scale --workers 1,2 --model cnn --backend local,mpi --regime strong,weak --output scaling\n"
    "  dist-relu scale --workers 2,4 --nodes 1,2,4 --backend mpi --host a:4,b:4,c:4,d:4 --output scaling\n"
    "  dist-relu scale --workers 2,4 --nodes 1,2 --backend ray --output scaling\n",
)
@data_option
@click.option(
    "--model",
    "model_texts",
    type=MODEL,
    multiple=True,
    default=["mlp:256,128"],
    show_default=True,
    metavar="MODEL",
    help=f"The network: {MODEL_FORMS}, or file.py:function. May be given several times.",
)
@dtype_option
@click.option("--workers", metavar="N,N,...", required=True, help="The numbers of workers.")
@click.option(
    "--nodes",
    metavar="N,N,...",
    help="For mpi and ray, run the same workers on so many of the hosts or of Ray's nodes, as many on each; what can't "
    "be is left out. Default: as there is room.",
)
@click.option(
    "--backend",
    "backends",
    type=SomeNames(_BACKENDS),
    default="local",
    show_default=True,
    metavar="NAME,...",
    help="What the workers are: local, mpi, ray. For mpi, mpirun starts ranks on this machine for each measurement.",
)
@click.option(
    "--regime",
    "regimes",
    type=SomeNames(("strong", "weak")),
    default="strong",
    show_default=True,
    help="strong: workers share a batch; weak: each has a batch of its own, so that it grows with them.",
)
@click.option(
    "--batch-size",
    metavar="N,N,...",
    default="64",
    show_default=True,
    help="Samples in a batch: over all workers, or with weak of each.",
)
@click.option(
    "--shards",
    metavar="N,N,...",
    help="The number of parts of the work. Default: the largest number of workers, so that all compute the same bits.",
)
@optimizer_option
@momentum_option
@click.option(
    "--steps", type=click.IntRange(2), default=100, show_default=True, help="Time so many steps in each measurement."
)
@click.option(
    "--warm-up", type=click.IntRange(1), default=10, show_default=True, help="Take so many steps before, untimed."
)
@click.option(
    "--repetitions", type=click.IntRange(1), default=5, show_default=True, help="Measure everything so many times."
)
@click.option(
    "--seed", type=SEED, default=0, show_default=True, help="Fixes the trainings and the order of measurements."
)
@click.option(
    "--host", "host_list", metavar="HOST:RANKS,...", help="For mpi, the hosts, and how many ranks each may have."
)
@click.option(
    "--hosts", "host_file", metavar="FILE", type=INPUT_FILE, help="The same from FILE, a host in each line: a:2."
)
@click.option(
    "--mpirun", "mpirun_command", metavar="COMMAND", help='Which mpirun, with options: "mpirun --oversubscribe".'
)
@click.option(
    "--at-once",
    "side_by_side",
    metavar="N,N,...",
    help="Measure also what each of N workers does beside the others on this machine, for dist-relu forecast "
    "--workers-per-node N.",
)
@click.option("--spread", is_flag=True, help="On Ray, use as many nodes as there are rather than few.")
@click.option(
    "--output",
    type=FOLDER,
    required=True,
    metavar="FOLDER",
    help="Write to FOLDER what is measured, a table, and a picture (.pdf: for a paper's column); go on with the same.",
)
def scale(
    source: str,
    model_texts: Sequence[str],
    dtype: str | None,
    workers: str,
    nodes: str | None,
    backends: str,
    regimes: str,
    batch_size: str,
    shards: str | None,
    optimizer: str,
    momentum: float,
    steps: int,
    warm_up: int,
    repetitions: int,
    seed: int,
    host_list: str | None,
    host_file: Path | None,
    mpirun_command: str | None,
    side_by_side: str | None,
    spread: bool,
    output: Path,
) -> None:
    """Measure how training scales over numbers of workers, with 95 % intervals.

    Every repetition measures everything once, in an order that is drawn anew. Times are paired with those on the
    fewest workers, step by step: with the same shards a step is the same arithmetic on all. Ctrl-C keeps what was
    measured; the same command goes on. A * marks times that something else on the machine may have lengthened, and
    ratios of such times.

    What a single worker of many does is measured too, on one core, for dist-relu forecast; with --at-once also beside
    others.
    """
    if host_list is not None and host_file is not None:
        raise click.UsageError("--host and --hosts both name hosts. Pass one of them.")
    for option, given, name, needed, chosen in (
        ("--shards", shards, "--regime", "strong", regimes),
        ("--mpirun", mpirun_command, "--backend", "mpi", backends),
        ("--spread", spread, "--backend", "ray", backends),
    ):
        if given and needed not in chosen.split(","):
            raise click.UsageError(f"{option} is for {name} {needed}, not {chosen}.")
    with usage_errors():
        hosts = parse_hosts(host_list) if host_list is not None else read_hosts(host_file) if host_file else []
        placement = Placement(spread=spread, hosts=hosts, mpirun=parse_words("--mpirun", mpirun_command or ""))
        numbers = parse_sizes("--workers ", workers)
        on_nodes = parse_sizes("--nodes ", nodes) if nodes else []
        check_places(placement, on_nodes, backends)
        cuts = parse_sizes("--shards ", shards) if shards else None
        at_once = parse_sizes("--at-once ", side_by_side) if side_by_side else []
        options: dict[str, Any] = {
            "backends": backends.split(","),
            "batch_sizes": parse_sizes("--batch-size ", batch_size),
            "nodes": on_nodes,
        }
        data = load(source)
        models = {text: parse_new_model(text, data, dtype) for text in model_texts}
        points = strong(list(models), numbers, shards=cuts, **options) if "strong" in regimes else []
        points += weak(list(models), numbers, **options) if "weak" in regimes else []
        for point in points:
            check_batch(point.batch_size, len(data.train))
        points = _with_room(points, placement, output)
        rate = Constant(OPTIMIZERS[optimizer].lr / 10)  # what is learnt is no matter, but it should not diverge
        rule = OPTIMIZERS[optimizer].make(rate, momentum, 0.0)
    make_folder("--output", output)
    console = Console()
    with StatusLine(console) as status:

        def show(one: Measurement, done: int, of: int) -> None:
            status.phase(f"Measured {done} of {of}: {_words(one.point)}")

        def show_profile(one: Profile, done: int, of: int) -> None:
            who = "a worker" if one.share.at_once == 1 else f"{one.share.at_once} workers at once"
            status.phase(f"Measured {done} of {of}: {who} of {one.share.model} with {one.share.rows} samples")

        common: dict[str, Any] = {"points": points, "folder": output, "steps": steps, "warm_up": warm_up, "seed": seed}
        common["repetitions"] = repetitions

        status.phase("Measuring")
        try:
            with usage_errors():
                found = experiment(models, data.train, rule, placement=placement, on_measured=show, **common)
                profiles(models, data.train, rule, at_once=at_once, on_measured=show_profile, **common)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; {output} keeps what was measured, and the same command goes on") from None
    rows = found.rows()
    console.print(f"{source}, {optimizer}; {found.machine['cpu']}, {found.machine['cores']} cores", highlight=False)
    for name, group in series_of(rows):
        console.print(f"\n{heading(name, group)}", highlight=False, markup=False, soft_wrap=True)
        print_table(table(group))
    for line in [*left_out(points, numbers, on_nodes), *remarks(found, rows)]:
        console.print(line, highlight=False, soft_wrap=True)
    _write(found, rows, output, about=f"{', '.join(models)} on {source}, {optimizer}")


def _write(found: Experiment, rows: Sequence[Row], output: Path, *, about: str) -> None:
    attempts = new_attempts()
    with attempts.writing(output):
        write_formats(found, output)
    if find_spec("matplotlib"):
        curves = [_curve(name, group) for name, group in curves_of(rows)]
        for name, form in _PICTURES.items():
            with attempts.writing(output / name):
                draw_scaling(curves, output / name, form=form, about=about)
    else:
        click.echo("No picture: it needs matplotlib. Install it: pip install 'dist_relu[plot]'.", err=True)
    attempts.check()


def check_places(placement: Placement, nodes: Sequence[int], backends: str) -> None:
    """Refuse hosts where no ranks run, and nodes that nobody can choose.  Raises click.UsageError."""
    hosts, names = placement.hosts, set(backends.split(","))
    if hosts and backends != "mpi":
        raise click.UsageError(f"--host and --hosts are for --backend mpi, not {backends}.")
    if nodes and names - {"mpi", "ray"}:
        raise click.UsageError(f"--nodes is for --backend mpi or ray, not {backends}.")
    if nodes and placement.spread:
        raise click.UsageError("--nodes and --spread both say where workers go. Pass one of them.")
    if nodes and "mpi" in names and max(nodes) > len(hosts):
        raise click.UsageError(
            f"--nodes {max(nodes)} needs as many hosts, not {len(hosts)}. Name them with --host or --hosts."
        )


def _with_room(points: Sequence[Point], placement: Placement, folder: Path) -> list[Point]:
    """Leave out points for whose workers too few hosts or nodes have room, but for those that were measured before.

    Raises what `Placement.lacking` has where nothing is left of a number of nodes.
    """
    measured = {one.point for one in read_measurements(folder)}
    lacking = placement.lacking([point for point in points if point not in measured])
    fitting = [point for point in points if point not in lacking]
    for point, reason in lacking.items():
        if point.nodes not in {one.nodes for one in fitting}:
            raise reason
    return fitting


def left_out(points: Sequence[Point], workers: Sequence[int], nodes: Sequence[int]) -> list[str]:
    """Say which workers were not measured on which nodes, and why."""
    measured, told = {point.size for point in points}, []
    for on_nodes in sorted(set(nodes)):
        others = [number for number in sorted(set(workers)) if (number, on_nodes) not in measured]
        uneven = [number for number in others if number % on_nodes]
        for numbers, why in (
            (uneven, "which can't have as many each"),
            ([number for number in others if number not in uneven], "for which too few have room"),
        ):
            if numbers:
                told.append(f"Left out: {_counted(numbers, 'worker')} on {_counted([on_nodes], 'node')}, {why}.")
    return told


def _counted(numbers: Sequence[int], what: str) -> str:
    return f"{', '.join(map(str, numbers))} {what}{'s' * (numbers[-1] > 1)}"


def _words(point: Point) -> str:
    nodes = f" on {_counted([point.nodes], 'node')}" if point.nodes else ""
    return f"{point.regime} {point.model} {point.backend}, {_counted([point.workers], 'worker')}{nodes}"


def heading(name: str, rows: Sequence[Row]) -> str:
    """Say what the rows of a series have in common.  name: of the series."""
    first = rows[0].point
    words = [name, *(word for word in (first.model, first.regime, first.backend) if word not in name.split(", "))]
    common = [f"{what} {values[0]}" for what, values in _about(rows).items() if len(set(values)) == 1]
    return ", ".join([*words, *(each for each in common if each not in name)])


def _about(rows: Sequence[Row]) -> dict[str, list[str]]:
    return {
        "batch": [str(row.point.batch_size) for row in rows],
        "shards": [str(row.point.shards) for row in rows],
        "nodes": [str(row.nodes) for row in rows],
    }


def table(rows: Sequence[Row]) -> Table:
    """A line for each point of a series.

    The interval of the speed-up is that of the efficiency, times the number of workers.
    """
    shown = Table(box=None, pad_edge=False)
    columns = {what: values for what, values in _about(rows).items() if len(set(values)) > 1}
    columns |= {
        "workers": [str(row.point.workers) for row in rows],
        "ms": [f"{row.step_s.value * 1e3:.4g}{'*' * row.is_busy}" for row in rows],
        "speed-up": [f"{row.speed_up.value:.3g}{'*' * row.is_ratio_busy}" for row in rows],
        "efficiency": [f"{_in_percent(row.efficiency * 100)}{'*' * row.is_ratio_busy}" for row in rows],
    }
    for column in columns:
        shown.add_column(column, justify="right", no_wrap=True)
    for values in zip(*columns.values(), strict=True):
        shown.add_row(*values)
    return shown


def _in_percent(interval: Interval) -> str:
    return f"{interval.value:.3g}% ({interval.low:.3g}–{interval.high:.3g})"


def remarks(found: Experiment, rows: Sequence[Row]) -> list[str]:
    """What a reader of the table must know."""
    told, cores = [], found.machine["cores"]
    if any(row.is_busy for row in rows):
        told.append(
            "* Others used more than 5 % of the machine meanwhile, or 1 % of it was taken away (steal time): measure "
            "again when it is idle."
        )
    if any(row.repetitions < ENOUGH_REPETITIONS for row in rows):
        told.append(
            f"Intervals of fewer than {ENOUGH_REPETITIONS} repetitions hold less often than 95 %: pass --repetitions "
            f"{ENOUGH_REPETITIONS}."
        )
    if any(row.point.workers > cores * row.nodes for row in rows):
        told.append(f"Where there are more workers than cores, {cores} of a machine, they share these.")
    if (governor := found.machine["governor"]) not in (None, "performance"):
        told.append(f"The processor's governor is {governor}: clocks may change meanwhile.")
    for point in found.disagreeing():
        told.append(f"Warning: {_words(point)} ended with other bits than most. Run dist-relu doctor.")
    return told


def _curve(name: str, rows: Sequence[Row]) -> ScalingCurve:
    def estimates(intervals: Sequence[Interval]) -> list[tuple[float, float, float]]:
        return [(one.value, one.low, one.high) for one in intervals]

    return ScalingCurve(
        name,
        [row.point.workers for row in rows],
        estimates([row.speed_up for row in rows]),
        estimates([row.efficiency for row in rows]),
    )
