"""Forecasts beside what is then measured on the test network: sudo python scripts/held_out_forecasts.py

What goes into a forecast is measured with other jobs: what a worker does alone on one core, and messages between
two hosts that train another model. Then steps on more hosts, at several rates, are forecast, and only then measured.
All hosts share this machine's cores, which a forecast takes into account. Needs root and an idle machine; takes a
quarter of an hour. Prints a table, the worst forecast first.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dist_relu import nn, optim
from dist_relu.data import Dataset
from dist_relu.launch.hosts import Host
from dist_relu.scaling import Cluster, Network, Placement, Point, Profile, experiment, forecast, profiles, strong
from dist_relu.scaling.network import measured

CLUSTER = Path(__file__).resolve().parent.parent / "cluster"
NET = f"held{os.getpid() % 1000}"
os.environ["HOSTS_NET"] = NET
RULE = optim.SGD(0.01, momentum=0.9)
MODELS = {"mlp-small": (256, 128), "mlp-medium": (1024, 1024)}
BATCH_SIZE, SHARDS = 256, 16


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
    parser.add_argument("--hosts", default="3,4,8,16", help="numbers of hosts")
    parser.add_argument("--rates", default="1,2,5,10", help="of links, in Gbit/s")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the hosts are removed then
    hosts = [int(text) for text in options.hosts.split(",")]
    models = {name: nn.mlp(MODELS[name], 10) for name in options.models.split(",")}
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="held-out-") as folder:
        lab = Lab(models, hosts, cores, options.steps, Path(folder))
        rows = list(lab.in_a_node())
        for rate in options.rates.split(","):
            rows += lab.at(rate)
    rows.sort(key=lambda row: -abs(row.off))
    print(f"| where | model | workers | forecast ms | measured ms | off | limit |\n|{'---|' * 7}")
    for row in rows:
        times = f"{row.forecast_s * 1e3:.2f} | {row.measured_s * 1e3:.2f} | {row.off:+.0%}"
        print(f"| {row.where} | {row.model} | {row.workers} | {times} | {row.limit} |")
    within = sum(abs(row.off) <= 0.15 for row in rows)
    print(f"\n{within} of {len(rows)} within 15 %.")


class Lab:
    """What was measured so far, and what is to be.  cores: that all hosts share."""

    def __init__(
        self, models: dict[str, nn.Sequential], hosts: Sequence[int], cores: int, steps: int, folder: Path
    ) -> None:
        self._models, self._hosts, self._cores, self._steps, self._folder = models, hosts, cores, steps, folder
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((1024, 784), np.float32), rng.integers(0, 10, 1024)
        x[np.arange(1024), y] += 5
        self._data = Dataset(x, y)
        self._points = strong(list(models), [1], batch_sizes=[BATCH_SIZE], shards=[SHARDS])
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(allowed)})
        try:
            self._profiles = self._profiled()
        finally:
            os.sched_setaffinity(0, allowed)

    def _profiled(self) -> list[Profile]:
        return profiles(
            self._models, self._data, RULE, points=self._points, folder=self._folder, steps=self._steps, repetitions=3
        )

    def in_a_node(self) -> Iterator[Row]:
        """All cores of this machine, without a network."""
        cluster = Cluster(network=Network.of_ethernet("10G"), workers_per_node=self._cores)
        if self._cores > 1:
            yield from self._compared("one host", cluster, 1, "local", Placement())

    def at(self, rate: str) -> Iterator[Row]:
        """Several hosts, with links of this rate in Gbit/s."""
        with network(max(self._hosts), rate) as mpirun:
            found = measured(
                experiment(
                    {"other": nn.mlp([16], 10)},
                    self._data,
                    RULE,
                    points=strong(["other"], [2], backends=["mpi"], batch_sizes=[64]),
                    folder=self._folder / f"messages-{rate}",
                    steps=5,
                    repetitions=2,
                    placement=Placement(hosts=named(2), mpirun=mpirun),
                ).measurements
            )[0]
            cluster = Cluster(network=found, shared_cores=self._cores)
            for number in self._hosts:
                placement = Placement(hosts=named(number), mpirun=mpirun)
                yield from self._compared(f"{number} hosts, {rate} Gbit/s", cluster, number, "mpi", placement)

    def _compared(self, where: str, cluster: Cluster, nodes: int, backend: str, placement: Placement) -> Iterator[Row]:
        workers = nodes * cluster.workers_per_node
        for point in self._points:
            (said,) = forecast(point, self._profiles, cluster, [nodes])
            real = Point(
                regime="strong",
                model=point.model,
                backend=backend,
                workers=workers,
                batch_size=BATCH_SIZE,
                shards=SHARDS,
            )
            found = experiment(
                self._models,
                self._data,
                RULE,
                points=[real],
                folder=self._folder / f"{where} {point.model}",
                steps=self._steps,
                repetitions=1,
                placement=placement,
            )
            seconds = float(np.median(found.measurements[0].step_seconds))
            row = Row(where, point.model, workers, said.seconds.value, seconds, said.limit)
            print(f"{where}, {point.model}: {row.forecast_s * 1e3:.2f} ms, and {seconds * 1e3:.2f}", file=sys.stderr)
            yield row


def named(number: int) -> list[Host]:
    return [Host(chr(ord("a") + i), 1) for i in range(number)]


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
