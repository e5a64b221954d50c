"""`dist-relu forecast`: how training would scale over nodes that nobody has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from dist_relu.cli.common import make_folder, new_attempts, usage_errors
from dist_relu.cli.parsing import parse_sizes
from dist_relu.cli.tables import print_table
from dist_relu.cli.types import DURATION, FOLDER, NOT_NEGATIVE, POSITIVE, SENT
from dist_relu.core.files import write_json
from dist_relu.reports.plots import ForecastCurve, draw_forecast, draw_node_costs
from dist_relu.reports.plots.style import COLUMN, PLAIN
from dist_relu.scaling import (
    Cluster,
    Failures,
    Forecast,
    Interval,
    Measurement,
    Network,
    Point,
    Profile,
    Simulated,
    calibrated,
    forecast,
)
from dist_relu.scaling.calibration import FACTOR_BOUNDS
from dist_relu.scaling.experiment import read_measurements
from dist_relu.scaling.forecast import series_points, simulated
from dist_relu.scaling.intervals import ENOUGH_REPETITIONS
from dist_relu.scaling.network import LINKS, TCP_LATENCY_S, measured
from dist_relu.scaling.profile import read_profiles

_FORMS = {".png": PLAIN, ".pdf": COLUMN}
_RECOVERY_S = 30.0
_NODES = "1,2,4,8,16,32,64,128,256,512,1024,2048,4096"


@click.command(
    name="forecast",
    epilog="\b\nExamples:\n"
    "  dist-relu scale --workers 1,2 --data mnist --batch-size 4096 --model mlp:1024,1024 --output scaling\n"
    "  dist-relu forecast scaling --network 10G\n"
    "  dist-relu forecast scaling --nodes 1,2,4,8 --workers-per-node 2 --network 25G --price 0.35\n",
)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--nodes", "node_list", metavar="N,N,...", default=_NODES, show_default=True, help="Numbers of nodes.")
@click.option(
    "--workers-per-node",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Workers on each node, on a core of its own each.",
)
@click.option(
    "--network",
    "network_name",
    metavar="NETWORK",
    default="10G",
    show_default=True,
    help=f"1G, 10G, 25G, 100G or another rate: TCP over Ethernet; {', '.join(LINKS)}: MPI on that, as published; or "
    "measured: as scale has found it between hosts.",
)
@click.option(
    "--latency",
    "latency_us",
    type=NOT_NEGATIVE,
    metavar="US",
    help=f"What a small message takes there, in us. Default: {TCP_LATENCY_S * 1e6:g}, as with TCP in a rack, or what "
    "is published of the network.",
)
@click.option(
    "--shared-cores",
    type=click.IntRange(1),
    metavar="N",
    help="All nodes have only N cores together, as hosts of a test network on one machine.",
)
@click.option(
    "--sent",
    type=SENT,
    metavar="SHARE",
    default=1.0,
    show_default=True,
    help="Gradients take this share of their bytes, as if they were compressed: 0.5 for bf16; dist-relu what-if tells.",
)
@click.option("--price", type=POSITIVE, metavar="PRICE", help="Of a node for an hour, in any currency.")
@click.option(
    "--simulate",
    "sim_steps",
    type=click.IntRange(1),
    metavar="STEPS",
    help="Simulate so many steps besides, message by message, with nodes that are late as the measured steps were.",
)
@click.option("--mtbf", type=POSITIVE, metavar="HOURS", help="In the simulation a node fails once in HOURS.")
@click.option(
    "--recovery",
    type=DURATION,
    metavar="TIME",
    help="What a failure costs, beside the step that is done again.  [default: 30s]",
)
@click.option(
    "--output", type=FOLDER, metavar="FOLDER", help="Write forecast.json and the pictures to FOLDER. Default: FOLDER."
)
def forecast_command(
    folder: Path,
    node_list: str,
    workers_per_node: int,
    network_name: str,
    latency_us: float | None,
    shared_cores: int | None,
    sent: float,
    price: float | None,
    sim_steps: int | None,
    mtbf: float | None,
    recovery: float | None,
    output: Path | None,
) -> None:
    """Forecast how training would scale over nodes that nobody has.

    FOLDER is what dist-relu scale has written. What one worker of many does was measured there, by the code that does
    it on a cluster; what messages cost is modelled: a latency, and a time for each byte. A step takes as long as the
    shards of the slowest node, its sums, what of the exchange is not hidden, and the update.
    """
    _check_together(sim_steps, mtbf, recovery)
    with usage_errors():
        nodes = parse_sizes("--nodes ", node_list)
        points = series_points([one.point for one in read_measurements(folder)])
        profiles = list(read_profiles(folder))
        if not points or not profiles:
            raise ValueError(f"{folder} has no measurements. Make some: dist-relu scale --output {folder}.")
        network, told = _network(network_name, latency_us, shared_cores, list(read_measurements(folder)), profiles)
        cluster = Cluster(network=network, workers_per_node=workers_per_node, shared_cores=shared_cores, sent=sent)
        found = {_name(point): forecast(point, profiles, cluster, nodes) for point in points}
    if not any(found.values()):
        raise click.UsageError(f"--nodes {node_list}: no batch has a sample for each worker of so many.")
    failures = (
        None if mtbf is None else Failures(mean_hours=mtbf, recovery_s=_RECOVERY_S if recovery is None else recovery)
    )
    simulations: dict[str, list[Simulated]] = {}
    if sim_steps is not None:
        for point, (name, rows) in zip(points, found.items(), strict=True):
            simulations[name] = [
                simulated(point, profiles, cluster, row, steps=sim_steps, failures=failures) for row in rows
            ]
    output = output or folder
    make_folder("--output", output)
    for name, rows in found.items():
        print_table(table(rows, name, price, simulations.get(name)))
    for line in [*left_out(found, nodes), *remarks(cluster, [*told, *doubts(profiles, workers_per_node)])]:
        Console().print(line, highlight=False, soft_wrap=True)
    attempts = new_attempts()
    with attempts.writing(output / "forecast.json"):
        write_json(
            output / "forecast.json",
            {
                "network": vars(network),
                "workers_per_node": workers_per_node,
                **({} if sent == 1 else {"sent": sent}),
                "series": {name: [row.as_json(price) for row in rows] for name, rows in found.items()},
                "simulated": {name: [asdict(one) for one in each] for name, each in simulations.items()},
            },
        )
    if find_spec("matplotlib"):
        curves = [_curve(name, rows, price, simulations.get(name)) for name, rows in found.items() if rows]
        about = f"Forecast, {network.name}"
        for suffix, form in _FORMS.items():
            of_steps, of_costs = (output / f"{name}{suffix}" for name in ("forecast", "node-costs"))
            with attempts.writing(of_steps):
                draw_forecast(curves, of_steps, workers_per_node=workers_per_node, form=form, about=about)
            with attempts.writing(of_costs):
                draw_node_costs(curves, of_costs, form=form, about=about)
    else:
        click.echo("No picture: it needs matplotlib. Install it: pip install 'dist_relu[plot]'.", err=True)
    attempts.check()


def _check_together(sim_steps: int | None, mtbf: float | None, recovery: float | None) -> None:
    """Refuse options that have no effect without another.  Raises click.UsageError."""
    if mtbf is not None and sim_steps is None:
        raise click.UsageError("--mtbf is for a simulation: pass --simulate STEPS with it.")
    if recovery is not None and mtbf is None:
        raise click.UsageError("--recovery is for failures: pass --mtbf HOURS with it.")


def _network(
    name: str,
    latency_us: float | None,
    shared_cores: int | None,
    measurements: Sequence[Measurement],
    profiles: Sequence[Profile],
) -> tuple[Network, list[str]]:
    """Return the network of this name, and what there is to say of one that was measured."""
    if name != "measured":
        try:
            return Network.named(name, None if latency_us is None else latency_us / 1e6), []
        except ValueError as error:
            raise ValueError(f"--network: {error} Or measured: as scale has found it between hosts.") from None
    if latency_us is not None:
        raise ValueError("--latency and --network measured both name a latency. Leave one out.")
    network, fit = measured(measurements)
    us, ns = fit.latency_s * 1e6, fit.s_per_byte * 1e9
    told = [f"It was measured: latency {us} us, {ns} ns a byte."]
    found = calibrated(network, measurements, profiles, Cluster(network=network, shared_cores=shared_cores))
    if found:
        network, factor = found
        told.append(f"Messages take {factor} times as much of cores as alone, which explains measured steps best.")
        if factor.value in FACTOR_BOUNDS:
            told.append("No other was tried beyond that: these steps have taken what forecasts know nothing of.")
    return network, told


def _name(point: Point) -> str:
    batch = point.batch_size if point.regime == "strong" else point.batch_size // point.workers
    return f"{point.model}, batch {batch}" + (" per worker" if point.regime == "weak" else "")


def table(rows: Sequence[Forecast], name: str, price: float | None, simulations: Sequence[Simulated] | None) -> Table:
    """A line for each number of nodes."""
    shown = Table(title=name, box=None, pad_edge=False, title_justify="left")
    columns = {
        "nodes": [str(row.nodes) for row in rows],
        "ms": [_short(row.seconds.value * 1e3) for row in rows],
        "exchange": [_short(row.step.exposed_s * 1e3) for row in rows],
        "speed-up": [_short(row.speed_up.value) for row in rows],
        "efficiency": [_in_percent(row.efficiency * 100) for row in rows],
        "limit": [row.limit for row in rows],
        "80% with": [str(row.enough_batch or "-") for row in rows],
        "MB": [f"{row.node_bytes / 1e6:.0f}" for row in rows],
    }
    if simulations is not None:
        columns["simulated"] = [_short(one.mean_s * 1e3) for one in simulations]
    if price is not None:
        columns |= {
            "an hour": [_short(price * row.nodes) for row in rows],
            "1M samples": [_short(row.cost_per_million(price)) for row in rows],
        }
    for column in columns:
        shown.add_column(column, justify="left" if column == "limit" else "right", no_wrap=True)
    for values in zip(*columns.values(), strict=True):
        shown.add_row(*values)
    return shown


def _short(number: float) -> str:
    """With three digits, or as a whole number."""
    return f"{number:,.0f}" if number >= 999.5 else f"{number:.3g}"


def _in_percent(interval: Interval) -> str:
    value, low, high = (
        f"{number:.0f}" if number >= 10 else f"{number:.2g}" for number in (interval.value, interval.low, interval.high)
    )
    return f"{value}% ({low}–{high})"


def left_out(found: Mapping[str, Sequence[Forecast]], nodes: Sequence[int]) -> list[str]:
    """Name the series that have too small a batch for some of the nodes."""
    told = []
    for name, rows in found.items():
        if missing := sorted(set(nodes) - {row.nodes for row in rows}):
            told.append(f"{name}: has no sample for each worker of {missing[0]} nodes or more.")
    return told


def remarks(cluster: Cluster, of_network: Sequence[str] = ()) -> list[str]:
    """What a reader of the tables must know."""
    network = cluster.network
    told = [
        f"Network {network.name}: {network.latency_s * 1e6:.3g} us, {network.bytes_per_s / 1e6:.4g} MB/s each way. "
        "ms: of a step; exchange: ms of it that are not hidden; 80% with: the batch for that efficiency, - where none "
        "is large enough; MB: shared memory of a node; simulated: ms of a step, with nodes that are late."
    ]
    told += of_network
    if cluster.shared_cores:
        told.append(f"All nodes share {cluster.shared_cores} cores.")
    if cluster.sent != 1:
        told.append(
            f"Gradients take {cluster.sent * 100:.3g}% of their bytes; what it takes to compress them is left out."
        )
    return told


def doubts(profiles: Sequence[Profile], workers_per_node: int = 1) -> list[str]:
    """Say so where forecasts are made of few times, of some that others may have lengthened, or not of such workers."""
    told = []
    if number := sum(one.company.is_busy for one in profiles):
        told.append(
            f"Others used the machine while {number} of {len(profiles)} profiles were measured: measure again in "
            "another folder when it is idle."
        )
    if min(Counter(one.share for one in profiles).values()) < ENOUGH_REPETITIONS:
        told.append(
            f"Intervals of fewer than {ENOUGH_REPETITIONS} repetitions hold less often than 95 %: dist-relu scale "
            f"--repetitions {ENOUGH_REPETITIONS}."
        )
    if all(one.share.at_once != workers_per_node for one in profiles):
        told.append(
            f"{workers_per_node} workers of a node are taken for as fast as alone. Measure them beside one another: "
            f"dist-relu scale --at-once {workers_per_node}."
        )
    return told


def _curve(
    name: str, rows: Sequence[Forecast], price: float | None, simulations: Sequence[Simulated] | None
) -> ForecastCurve:
    def estimates(intervals: Sequence[Interval]) -> list[tuple[float, float, float]]:
        return [(one.value, one.low, one.high) for one in intervals]

    return ForecastCurve(
        name,
        [row.nodes for row in rows],
        estimates([row.speed_up for row in rows]),
        estimates([row.efficiency for row in rows]),
        {
            "shards": [row.step.shards_s for row in rows],
            "node sum": [row.step.node_sum_s for row in rows],
            "exchange, not hidden": [row.step.exposed_s for row in rows],
            "update": [row.step.update_s for row in rows],
        },
        [row.limit for row in rows],
        [row.enough_batch for row in rows],
        [row.node_bytes for row in rows],
        [] if price is None else [row.cost_per_million(price) for row in rows],
        [
            row.speed_up.value * row.seconds.value / one.mean_s
            for row, one in zip(rows, simulations or [], strict=False)
        ],
    )
