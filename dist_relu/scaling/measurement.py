"""One training is timed: on workers of this machine or of Ray, or on the ranks of an MPI job that is started for it."""

from __future__ import annotations

import copy
import json
import pickle
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from dist_relu.coordinator import Coordinator, start
from dist_relu.core.arrays import Array
from dist_relu.data import Dataset
from dist_relu.errors import BackendError, DistReluError, PartitionError, UnsuitableBackend
from dist_relu.launch.hosts import Host
from dist_relu.launch.mpirun import Mpirun
from dist_relu.nn import Sequential
from dist_relu.optim import Optimizer
from dist_relu.runtime.backends.mpi.backend import mpirun_path
from dist_relu.runtime.backends.ray.room import lacking_nodes
from dist_relu.scaling.folder import measured
from dist_relu.scaling.grid import Point, check_batch
from dist_relu.scaling.machine import SHORTEST_S, Company, company, read_clock
from dist_relu.scaling.messages import time_messages

SCHEMA = 1
"""The version of the lines of `measurements.jsonl`, see measurement.schema.json."""

_MARK = "dist_relu measured: "
_JOB = "from dist_relu.scaling.measurement import measure_as_job; measure_as_job()"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is trained, whatever the workers are.

    steps: so many are timed, in a row.  warm_up: so many before them are not.
    """

    model: Sequential
    data: Dataset
    optimizer: Optimizer
    steps: int
    warm_up: int
    seed: int


def whole_batches(data: Dataset, batch_size: int) -> Dataset:
    """Leave out the samples behind the last whole batch of an epoch, so that all steps have as many.

    Raises `PartitionError` where there is no whole batch.
    """
    check_batch(batch_size, len(data))
    num_samples = len(data) // batch_size * batch_size
    return data if num_samples == len(data) else data.of_rows(np.arange(num_samples))


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured at a point, once.

    repetition: the round, in which all points were measured one after another.  began: the first timed step, in s since
    1970.  nodes: on which the workers were.  step_seconds: of every timed step, as the first worker saw it; each is of
    a whole batch.  sha256: of the parameters behind them.  company: what else the machine did.
    messages: bytes and seconds of each that was timed between two nodes.  message_s, cpu_s_per_byte: see `Network`.
    """

    point: Point
    repetition: int
    began: float
    nodes: int
    step_seconds: Sequence[float]
    sha256: str
    company: Company
    messages: Sequence[tuple[int, float]] = ()
    message_s: float = 0.0
    cpu_s_per_byte: float = 0.0

    def line(self) -> str:
        """As a line of JSON."""
        content = {"schema": SCHEMA, **asdict(self), "is_busy": self.company.is_busy}
        if self.point.nodes is None:
            del content["point"]["nodes"]
        return json.dumps(content)

    @classmethod
    def of_json(cls, content: Any) -> Self:
        """Make it of what a line stands for.  Raises ValueError, which says what is not as it should be."""
        found = measured(cls, content, SCHEMA, derived={"is_busy"})
        point = found.point
        if not point.workers <= point.shards <= point.batch_size:
            raise ValueError(f"point has {point.workers} workers, {point.shards} shards, {point.batch_size} samples")
        if point.nodes not in (None, found.nodes):
            raise ValueError(f"point has {point.nodes} nodes, and workers were on {found.nodes}")
        return found


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A placement says where workers are.

    spread: on Ray, over all nodes, where a point does not say on how many.  hosts: of MPI's ranks; none for this
    machine.  mpirun: the program that starts them, with options; none for the one that belongs to this Python.
    """

    spread: bool = False
    hosts: Sequence[Host] = ()
    mpirun: Sequence[str] = ()

    def lacking(self, points: Sequence[Point]) -> dict[Point, DistReluError]:
        """Tell for which points too few hosts, or nodes of the Ray cluster, may have as many workers each, and why.

        Raises `UnsuitableBackend` where numbers of nodes can't be chosen, and `BackendError` where there is no way to
        the cluster.
        """
        on_nodes = [point for point in points if point.nodes is not None]
        of_ray = {point.size for point in on_nodes if point.backend == "ray"}
        on_ray = lacking_nodes(of_ray) if of_ray else {}
        lacking: dict[Point, DistReluError] = {}
        for point in on_nodes:
            if point.backend != "ray":
                try:
                    self.hosts_of(point)
                except PartitionError as error:
                    lacking[point] = error
            elif point.size in on_ray:
                lacking[point] = on_ray[point.size]
        return lacking

    def hosts_of(self, point: Point) -> Sequence[Host]:
        """List the hosts that a point's ranks are started on, and how many each has.

        Those of a point that says on how many nodes are the first ones with room, otherwise they are all of them.

        Raises `UnsuitableBackend` where numbers of nodes can't be chosen, and `PartitionError` where nodes can't have
        as many workers each, or too few hosts have room.
        """
        if point.nodes is None:
            return self.hosts
        if point.backend != "mpi":
            raise UnsuitableBackend(
                f'Numbers of nodes are for MPI and Ray; with backend="{point.backend}" they can\'t be chosen.'
            )
        if point.workers % point.nodes:
            raise PartitionError(f"nodes={point.nodes} does not divide workers={point.workers}.")
        ranks = point.workers // point.nodes
        fitting = [Host(host.name, ranks) for host in self.hosts if host.slots >= ranks]
        if len(fitting) < point.nodes:
            there = ", ".join(map(str, self.hosts)) or "none"
            raise PartitionError(
                f"workers={point.workers} on nodes={point.nodes}: too few hosts have room for {ranks} ranks each. "
                f"There are: {there}."
            )
        return fitting[: point.nodes]

    def as_json(self) -> dict[str, Any]:
        """By the names of its fields."""
        return {"spread": self.spread, "hosts": list(map(str, self.hosts)), "mpirun": list(self.mpirun)}


HERE = Placement()


def measure(point: Point, work: Work, repetition: int, folder: Path, placement: Placement = HERE) -> Measurement:
    """Start workers, time a training on them, and let them end.

    folder: all hosts of the placement have it.  Raises what `start` and `Trainer.fit` raise.
    """
    if point.backend == "mpi":
        return _of_job(point, work, repetition, folder, placement)
    spread = placement.spread and point.nodes is None
    with start(
        point.workers, backend=point.backend, nodes=point.nodes, spread=spread, on_failure="stop"
    ) as coordinator:
        return _on(coordinator, point, work, repetition)


def _on(coordinator: Coordinator, point: Point, work: Work, repetition: int) -> Measurement:
    if point.nodes not in (None, coordinator.nodes):
        raise BackendError(
            f"Some of nodes={point.nodes} are the same machine: only {coordinator.nodes} took part. Each counts once."
        )
    model, data = copy.deepcopy(work.model), whole_batches(work.data, point.batch_size)
    with coordinator.trainer(
        model, data, work.optimizer, batch_size=point.batch_size, shards=point.shards, seed=work.seed
    ) as trainer:
        trainer.fit(steps=work.warm_up)
        began = time.time()
        before = [read_clock(), *coordinator.run(read_clock, None)]
        seconds: Array = trainer.fit(steps=work.steps).step_seconds
        time.sleep(max(SHORTEST_S - (time.monotonic() - before[0].now_s), 0))
        after = [read_clock(), *coordinator.run(read_clock, None)]
    timed = time_messages(coordinator)
    return Measurement(
        point=point,
        repetition=repetition,
        began=began,
        nodes=coordinator.nodes,
        step_seconds=seconds.tolist(),
        sha256=model.sha256(),
        company=company(before, after),
        messages=timed.messages,
        message_s=timed.message_s,
        cpu_s_per_byte=timed.cpu_s_per_byte,
    )


def _of_job(point: Point, work: Work, repetition: int, folder: Path, placement: Placement) -> Measurement:
    """Measure on the ranks of a job of its own, whose rank 0 reads what to do from a file.

    It may be on another host, so the file is where results go, which all hosts share, as clusters do. Data sets are too
    large for arguments, and not every mpirun passes its standard input on to other hosts.
    """
    mpirun = Mpirun.of(placement.mpirun or [mpirun_path()])
    with tempfile.TemporaryDirectory(prefix="job-", dir=folder) as of_job:
        order = Path(of_job).absolute() / "order"
        order.write_bytes(pickle.dumps((point, work, repetition)))
        command = mpirun.starting([sys.executable, "-c", _JOB, str(order)], point.workers, placement.hosts_of(point))
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    for line in done.stdout.splitlines():
        if line.startswith(_MARK):
            return Measurement.of_json(json.loads(line.removeprefix(_MARK)))
    said = done.stderr.strip().splitlines() or ["nothing"]
    last = next((line for line in reversed(said) if "Error: " in line), said[-1])
    raise BackendError(f"The MPI job on {point.workers} ranks ended with code {done.returncode}. It said: {last}")


def measure_as_job() -> None:
    """Measure on the ranks of this MPI job, and print what came of it; the program of `measure`."""
    with start(backend="mpi", on_failure="stop") as coordinator:
        order = Path(sys.argv[1])
        if not order.exists():
            raise BackendError(f"Host {socket.gethostname()} has no {order}. Choose a folder that all hosts share.")
        point, work, repetition = pickle.loads(order.read_bytes())
        print(_MARK + _on(coordinator, point, work, repetition).line(), flush=True)  # noqa: T201 - it is read
