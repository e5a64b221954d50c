"""Forecasts beside what is then measured on the test network: sudo python scripts/held_out_forecasts.py

What goes into a forecast is measured otherwise: what a worker does alone on one core, how much slower it is beside as
many others as share this machine, without any network, and messages between hosts that train another model. Nothing of
the steps that are forecast goes into it. Needs root and an idle machine; takes twenty minutes. Prints a table, the
worst forecast first.
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
    strong,
)
from dist_relu.scaling.network import measured
from dist_relu.scaling.profile import read_profiles

CLUSTER = Path(__file__).resolve().parent.parent / "cluster"
NET = f"held{os.getpid() % 1000}"
os.environ["HOSTS_NET"] = NET
RULE = optim.SGD(0.01, momentum=0.9)
MODELS = {"mlp-small": (256, 128), "mlp-medium": (1024, 1024)}
OTHER, OTHER_SIZES = "other", (512,)
"""The model whose steps tell what messages take of cores."""

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
    parser.add_argument("--rounds", type=int, default=3, help="that everything is measured in")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the hosts are removed then
    hosts = [int(text) for text in options.hosts.split(",")]
    models = {name: nn.mlp(MODELS[name], 10) for name in options.models.split(",")}
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="held-out-") as folder:
        lab = Lab(models, hosts, cores, options.steps, options.rounds, Path(folder))
        cases = lab.in_a_node()
        for rate in options.rates.split(","):
            cases += lab.at(rate)
        rows = lab.compared(cases)
    rows.sort(key=lambda row: -abs(row.off))
    print(f"| where | model | workers | forecast ms | measured ms | off | limit |\n|{'---|' * 7}")
    for row in rows:
        times = f"{row.forecast_s * 1e3:.2f} | {row.measured_s * 1e3:.2f} | {row.off:+.0%}"
        print(f"| {row.where} | {row.model} | {row.workers} | {times} | {row.limit} |")
    within = sum(abs(row.off) <= 0.15 for row in rows)
    print(f"\n{within} of {len(rows)} within 15 %.")


@dataclass(frozen=True)
class Case:
    """Steps of a model that were measured, in medians of rounds, and are to be forecast.

    others: what was measured of messages there, and of the other model; nothing where there is no network.
    """

    where: str
    point: Point
    cluster: Cluster
    nodes: int
    others: Sequence[Measurement]
    measured_s: list[float]


class Lab:
    """What is measured, and what was so far.  cores: that all hosts share.

    Workers alone are measured anew in each round, beside what is to be forecast, so that a machine which is faster in
    one minute than in another is so for both.
    """

    def __init__(
        self,
        models: dict[str, nn.Sequential],
        hosts: Sequence[int],
        cores: int,
        steps: int,
        rounds: int,
        folder: Path,
    ) -> None:
        self._models = models | {OTHER: nn.mlp(OTHER_SIZES, 10)}
        self._held_out, self._hosts, self._cores, self._folder = list(models), hosts, cores, folder
        self._steps, self._rounds = steps, rounds
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((1024, 784), np.float32), rng.integers(0, 10, 1024)
        x[np.arange(1024), y] += 5
        self._data = Dataset(x, y)
        self._alone = strong(list(self._models), [1], batch_sizes=[BATCH_SIZE], shards=[SHARDS])
        self._at_once = sorted({cores, *hosts} - {1})
        self._num_profiled = 0

    def in_a_node(self) -> list[Case]:
        """All cores of this machine, without a network."""
        cluster = Cluster(network=Network.of_ethernet("10G"), workers_per_node=self._cores)
        cases = self._cases("one host", cluster, 1, []) if self._cores > 1 else []
        self._measure([(case, Placement()) for case in cases])
        return cases

    def at(self, rate: str) -> list[Case]:
        """Several hosts, with links of this rate in Gbit/s."""
        with network(max(self._hosts), rate) as mpirun:
            cases = []
            for number in self._hosts:
                others = self._messages(number, rate, mpirun)
                cluster = Cluster(network=measured(others)[0], shared_cores=self._cores)
                cases += self._cases(f"{number} hosts, {rate} Gbit/s", cluster, number, others)
            self._measure([(case, Placement(hosts=named(case.nodes), mpirun=mpirun)) for case in cases])
        return cases

    def _messages(self, number: int, rate: str, mpirun: list[str]) -> Sequence[Measurement]:
        """Measure messages between so many hosts, and steps of the other model."""
        return experiment(
            self._models,
            self._data,
            RULE,
            points=strong([OTHER], [number], backends=["mpi"], batch_sizes=[BATCH_SIZE], shards=[SHARDS]),
            folder=self._folder / f"messages between {number} at {rate}",
            steps=self._steps,
            repetitions=2,
            placement=Placement(hosts=named(number), mpirun=mpirun),
        ).measurements

    def compared(self, cases: Sequence[Case]) -> list[Row]:
        """Forecast all from what workers have taken without a network, and compare."""
        profiled = list(read_profiles(self._folder))
        rows = []
        for case in cases:
            point = next(one for one in self._alone if one.model == case.point.model)
            network = case.cluster.network
            if found := calibrated(network, case.others, profiled, case.cluster):
                network, factor = found
                print(f"{case.where}: {case.cluster.network}, messages times {factor}", file=sys.stderr)
            (said,) = forecast(point, profiled, replace(case.cluster, network=network), [case.nodes])
            seconds = float(np.median(case.measured_s))
            rows.append(Row(case.where, point.model, case.point.workers, said.seconds.value, seconds, said.limit))
        return rows

    def _cases(self, where: str, cluster: Cluster, nodes: int, others: Sequence[Measurement]) -> list[Case]:
        backend, workers = "mpi" if others else "local", nodes * cluster.workers_per_node
        points = strong(self._held_out, [workers], backends=[backend], batch_sizes=[BATCH_SIZE], shards=[SHARDS])
        return [Case(where, point, cluster, nodes, others, []) for point in points]

    def _measure(self, placed: Sequence[tuple[Case, Placement]]) -> None:
        """Measure all, round by round, and before each round what a worker does alone and beside others."""
        for number in range(self._rounds):
            self._profile()
            for case, placement in placed:
                found = experiment(
                    self._models,
                    self._data,
                    RULE,
                    points=[case.point],
                    folder=self._folder / f"{case.where} {case.point.model} {number}",
                    steps=self._steps,
                    repetitions=1,
                    placement=placement,
                )
                case.measured_s.append(float(np.median(found.measurements[0].step_seconds)))
                print(f"{case.where}, {case.point.model}: {case.measured_s[-1] * 1e3:.2f} ms", file=sys.stderr)

    def _profile(self) -> None:
        self._num_profiled += 1
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(allowed)})
        try:
            self._profiles()
        finally:
            os.sched_setaffinity(0, allowed)
        if self._num_profiled == 1:
            self._profiles(self._at_once)

    def _profiles(self, at_once: Sequence[int] = ()) -> None:
        profiles(
            self._models,
            self._data,
            RULE,
            points=self._alone,
            folder=self._folder,
            steps=self._steps,
            repetitions=self._num_profiled,
            at_once=at_once,
        )


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
