"""Forecasts beside what is then measured on the test network: sudo python scripts/held_out_forecasts.py

What goes into a forecast is measured otherwise: what a worker does alone on one core, how much slower it is beside as
many others as share this machine, without any network, and messages between hosts that train other models. Nothing of
the steps that are forecast goes into it, but it is measured within the same minutes, in rounds, since a machine that is
shared with strangers is faster in some than in others. Needs root and an idle machine; takes more than half an hour for
each rate, most of it for 16 hosts. Prints a table, the worst forecast first, also when it is interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dist_relu import nn, optim
from dist_relu.data import Dataset
from dist_relu.launch.hosts import Host
from dist_relu.scaling import (
    Cluster,
    Measurement,
    Network,
    Placement,
    Point,
    calibrated,
    experiment,
    forecast,
    profiles,
)
from dist_relu.scaling.network import measured as network_of
from dist_relu.scaling.profile import Profile, read_profiles

CLUSTER = Path(__file__).resolve().parent.parent / "cluster"
NET = f"held{os.getpid() % 1000}"
os.environ["HOSTS_NET"] = NET
RULE = optim.SGD(0.01, momentum=0.9)
MODELS = {"mlp-small": (256, 128), "mlp-medium": (1024, 1024)}
OTHERS = {"mlp-512": (512,), "mlp-768-512": (768, 512)}
"""Models whose steps tell what messages take of cores."""

BATCH_SIZE, SHARDS, NUM_SAMPLES = 256, 16, 8192


@dataclass(frozen=True)
class Row:
    """A forecast of steps of a model, and what was measured."""

    where: str
    model: str
    workers: int
    forecast_s: float
    measured_s: float
    limit: str

    @property
    def off(self) -> float:
        return self.forecast_s / self.measured_s - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hosts", default="3,4,8,16", help="numbers of hosts; '': this one alone, which needs no root")
    parser.add_argument("--rates", default="1,2,5,10", help="of links, in Gbit/s")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3, help="that everything is measured in")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the hosts are removed then, and what is known is told
    hosts = [int(text) for text in options.hosts.split(",") if text]
    rows: list[Row] = []
    with suppress(KeyboardInterrupt), tempfile.TemporaryDirectory(prefix="held-out-") as folder:
        lab = Lab(options.models.split(","), options.steps, options.rounds, Path(folder))
        rows += lab.in_a_node()
        for rate in options.rates.split(",") if hosts else ():
            with network(max(hosts), rate) as mpirun:
                for number in hosts:
                    rows += lab.on(number, rate, mpirun)
    rows.sort(key=lambda row: -abs(row.off))
    print(f"| where | model | workers | forecast ms | measured ms | off | limit |\n|{'---|' * 7}")
    for row in rows:
        times = f"{row.forecast_s * 1e3:.2f} | {row.measured_s * 1e3:.2f} | {row.off:+.0%}"
        print(f"| {row.where} | {row.model} | {row.workers} | {times} | {row.limit} |")
    within = sum(abs(row.off) <= 0.15 for row in rows)
    print(f"\n{within} of {len(rows)} within 15 %.")


class Lab:
    """Forecasts steps of these models, from what it measures in so many rounds beside them."""

    def __init__(self, models: Sequence[str], steps: int, rounds: int, folder: Path) -> None:
        self._held_out, self._steps, self._rounds, self._folder = models, steps, rounds, folder
        self._models = {name: nn.mlp(sizes, 10) for name, sizes in (MODELS | OTHERS).items()}
        self._cores = len(os.sched_getaffinity(0))
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((NUM_SAMPLES, 784), np.float32), rng.integers(0, 10, NUM_SAMPLES)
        x[np.arange(NUM_SAMPLES), y] += 5
        self._data = Dataset(x, y)

    def in_a_node(self) -> list[Row]:
        """All cores of this machine, without a network."""
        if self._cores == 1:
            return []
        profiled, measured = self._measured("one host", self._held_out, "local", self._cores, Placement())
        cluster = Cluster(network=Network.of_ethernet("10G"), workers_per_node=self._cores)
        return self._rows("one host", cluster, 1, profiled, measured)

    def on(self, hosts: int, rate: str, mpirun: list[str]) -> list[Row]:
        """So many hosts, with links of this rate in Gbit/s."""
        where, models = f"{hosts} hosts, {rate} Gbit/s", [*OTHERS, *self._held_out]
        placement = Placement(hosts=[Host(chr(ord("a") + i), 1) for i in range(hosts)], mpirun=mpirun)
        profiled, measured = self._measured(where, models, "mpi", hosts, placement)
        others = [one for one in measured if one.point.model in OTHERS]
        cluster = Cluster(network=network_of(others)[0], shared_cores=self._cores)
        if found := calibrated(cluster.network, others, profiled, cluster):
            cluster = replace(cluster, network=found[0])
            print(f"{where}: messages times {found[1]}", file=sys.stderr)
        return self._rows(where, cluster, hosts, profiled, measured)

    def _measured(
        self, where: str, models: Sequence[str], backend: str, workers: int, placement: Placement
    ) -> tuple[list[Profile], Sequence[Measurement]]:
        """Measure steps of these models on so many workers, and what one of them does alone and beside as many."""
        points = [point_of(model, workers, backend, workers) for model in models]
        alone = [point_of(model, workers, "serial", 1) for model in models]
        folder = self._folder / where
        found: Sequence[Measurement] = []
        for number in range(1, self._rounds + 1):
            self._profile(folder / "alone", alone, number)
            self._profile(folder / "alone", alone, number, at_once=[workers])
            found = experiment(
                self._models,
                self._data,
                RULE,
                points=points,
                folder=folder / "steps",
                steps=self._steps,
                repetitions=number,
                placement=placement,
            ).measurements
            for one in found[-len(points) :]:
                others = f"others took {one.company.others:.0%} of the machine"
                print(
                    f"{where}, {one.point.model}: {np.median(one.step_seconds) * 1e3:.2f} ms, {others}", file=sys.stderr
                )
        return list(read_profiles(folder / "alone")), found

    def _profile(self, folder: Path, points: Sequence[Point], number: int, at_once: Sequence[int] = ()) -> None:
        """Measure once more: one worker on one core, or so many at once on all."""
        allowed = os.sched_getaffinity(0)
        if not at_once:
            os.sched_setaffinity(0, {max(allowed)})
        try:
            profiles(
                self._models,
                self._data,
                RULE,
                points=points,
                folder=folder,
                steps=self._steps,
                repetitions=number,
                at_once=at_once,
            )
        finally:
            os.sched_setaffinity(0, allowed)

    def _rows(
        self, where: str, cluster: Cluster, nodes: int, profiled: list[Profile], measured: Sequence[Measurement]
    ) -> list[Row]:
        """Forecast what was held out, and compare with what others have not disturbed, if there is any."""
        rows = []
        for model in self._held_out:
            point = point_of(model, nodes * cluster.workers_per_node, "serial", 1)
            (said,) = forecast(point, profiled, cluster, [nodes])
            of_model = [one for one in measured if one.point.model == model]
            undisturbed = [one for one in of_model if not one.company.is_busy] or of_model
            times = [float(np.median(one.step_seconds)) for one in undisturbed]
            rows.append(Row(where, model, said.workers, said.seconds.value, float(np.median(times)), said.limit))
            print(f"{where}, {model}: forecast {said.seconds * 1e3} ms, {rows[-1].off:+.0%}", file=sys.stderr)
        return rows


def point_of(model: str, of: int, backend: str, workers: int) -> Point:
    """Return one of the series whose every worker has what one of so many has of a batch."""
    return Point(
        regime="weak",
        model=model,
        backend=backend,
        workers=workers,
        batch_size=BATCH_SIZE // of * workers,
        shards=SHARDS // of * workers,
    )


@contextmanager
def network(number: int, rate: str) -> Iterator[list[str]]:
    """Make hosts; returns the mpirun that reaches them, as `cluster/hosts mpirun` has it."""
    program = str(CLUSTER / "hosts")
    subprocess.run([program, "up", str(number), "--rate", f"{rate}gbit"], check=True)
    try:
        status = subprocess.run([program, "status"], check=True, capture_output=True, text=True).stdout
        subnet = status.split()[1].rpartition(".")[0]
        mpirun = str(Path(sys.executable).parent / "mpirun")
        launcher = ["-launcher", "ssh", "-launcher-exec", str(CLUSTER / "launch"), "-genv", "UCX_TLS", "tcp,self"]
        yield ["ip", "netns", "exec", f"{NET}-switch", mpirun, "-localhost", f"{subnet}.254", *launcher]
    finally:
        subprocess.run([program, "down"], check=True)


if __name__ == "__main__":
    main()
