"""What the processes of a job say of their machines and of the links between them, and what is wrong with it.

How this is asked, over MPI or over Ray, is the business of `mpi_survey` and `ray_survey`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from dist_relu.core import machine
from dist_relu.core.arrays import Array
from dist_relu.doctor.finding import Check, Finding, State
from dist_relu.runtime.process_info import ProcessInfo

Exchange = Callable[[Array], None]
"""Sends bytes to a peer, who sends as many back, into the same array."""

_SMALL_BYTES = 8
_NUM_SMALL = 200
LARGEST_BYTES = 1 << 22
_LARGE_BYTES = (1 << 16, 1 << 18, 1 << 20, LARGEST_BYTES)
_NUM_LARGE = 4
_LONG_ENOUGH_S = 0.1


@dataclass(frozen=True)
class Process:
    """A process that would be a worker.  node: as in `ProcessInfo`.  cores: the hardware threads it may use."""

    rank: int
    host: str
    node: str
    cores: tuple[int, ...]
    cpu: str
    blas: str
    versions: Mapping[str, str]

    @classmethod
    def here(cls, rank: int) -> Process:
        info = ProcessInfo.here()
        cores = tuple(sorted(os.sched_getaffinity(0)))
        return cls(rank, info.host, info.node, cores, machine.cpu_name(), machine.blas_name(), machine.versions())


@dataclass(frozen=True)
class Link:
    """A way from one node to another, there and back.

    latency_s: half of a round trip.  sent_bytes: from `source`.  counted_bytes: by its network interfaces meanwhile.
    clock_offset_s: how far the clock of `target` is ahead.
    """

    source: str
    target: str
    latency_s: float
    bytes_per_s: float
    sent_bytes: int
    counted_bytes: Mapping[str, int]
    clock_offset_s: float


@dataclass(frozen=True)
class Survey:
    """All processes of a job, and the links of the first one's node to the others.

    by: what carried the bytes.  elsewhere: what was found on other nodes, with their hosts.
    """

    by: str
    processes: Sequence[Process]
    links: Sequence[Link]
    elsewhere: Sequence[tuple[str, Finding]]


def measure(source: str, target: str, exchange: Exchange, clock: Callable[[], float]) -> Link:
    """Measure a link.  exchange: see above.  clock: asks the other end for its time, in seconds."""
    small = np.zeros(_SMALL_BYTES, np.uint8)
    exchange(small)
    before, sent_bytes = interface_bytes(), 0
    trips = []
    for _ in range(_NUM_SMALL):
        trips.append(_timed(exchange, small))
        sent_bytes += _SMALL_BYTES
        if sum(trips) > _LONG_ENOUGH_S * 5:
            break
    for size_bytes in _LARGE_BYTES:
        large = np.zeros(size_bytes, np.uint8)
        times = [_timed(exchange, large) for _ in range(_NUM_LARGE)]
        sent_bytes += size_bytes * _NUM_LARGE
        if min(times) > _LONG_ENOUGH_S:
            break
    after = interface_bytes()
    counted = {name: count - before.get(name, count) for name, count in after.items()}
    bytes_per_s = 2 * size_bytes / min(times)
    return Link(source, target, float(np.median(trips)) / 2, bytes_per_s, sent_bytes, counted, _offset(clock))


def _timed(exchange: Exchange, buffer: Array) -> float:
    start = time.perf_counter()
    exchange(buffer)
    return time.perf_counter() - start


def _offset(clock: Callable[[], float]) -> float:
    """Tell how far the other clock is ahead: from the question that was answered fastest (Cristian, 1989)."""
    best = (float("inf"), 0.0)
    for _ in range(20):
        asked = time.time()
        theirs = clock()
        answered = time.time()
        best = min(best, (answered - asked, theirs - (asked + answered) / 2))
    return best[1]


def interface_bytes(sys_class: Path = Path("/sys/class")) -> dict[str, int]:
    """Return the bytes that each network interface of this host has sent: Ethernet and the like, and InfiniBand."""
    counted = {}
    for path in (sys_class / "net").glob("*/statistics/tx_bytes"):
        counted[path.parent.parent.name] = int(path.read_text())
    for path in (sys_class / "infiniband").glob("*/ports/*/counters/port_xmit_data"):
        counted[path.relative_to(sys_class / "infiniband").parts[0]] = 4 * int(path.read_text())
    return counted


def check_nodes(survey: Survey) -> Finding:
    """Check where the processes run."""
    told = ", ".join(f"{len(ranks)} on {host}" for host, ranks in _by_node(survey.processes))
    numbers = {"processes": len(survey.processes), "nodes": len(_by_node(survey.processes))}
    return Finding("nodes", State.OK, f"{survey.by}: {told}.", "", numbers)


def check_placement(processes: Sequence[Process]) -> Finding:
    """Check whether every process has a core of its own."""
    crowded = []
    for host, ranks in _by_node(processes):
        cores = {core for process in ranks for core in process.cores}
        if len(cores) < len(ranks):
            crowded.append(f"{len(ranks)} ranks share {len(cores)} hardware threads on {host}")
    if crowded:
        advice = (
            "Start fewer ranks there (mpirun -ppn, --ntasks-per-node), or give each its own cores (--bind-to core)."
        )
        return Finding("placement", State.WARNING, f"{'; '.join(crowded)}.", advice)
    return Finding("placement", State.OK, "Every rank has a hardware thread of its own.")


def check_alike(processes: Sequence[Process]) -> Finding:
    """Check whether all nodes have the same software and processors; else bits differ, or pickles don't fit."""
    first, different = processes[0], []
    for process in processes[1:]:
        theirs = {"CPU": process.cpu, "BLAS": process.blas, **process.versions}
        mine = {"CPU": first.cpu, "BLAS": first.blas, **first.versions}
        for name, ours in mine.items():
            if theirs.get(name) != ours:
                different.append((name, f"{name} is {ours} on {first.host} but {theirs.get(name)} on {process.host}"))
    if not different:
        return Finding("alike", State.OK, "The same CPU, BLAS, Python and packages on all nodes: the same bits.")
    found = f"{'; '.join(dict.fromkeys(text for _, text in different))}."
    pythons = {process.versions["python"].rpartition(".")[0] for process in processes}
    if len(pythons) > 1 or "dist_relu" in dict(different):
        advice = "Install the same versions on all nodes: work is sent between them as Python objects."
        return Finding("alike", State.FAILURE, found, advice)
    advice = "Training works, but bits depend on which node computes what. Use equal nodes and equal environments."
    return Finding("alike", State.WARNING, found, advice)


def check_network(links: Sequence[Link]) -> Finding:
    """Check how fast the network between nodes is."""
    told = "; ".join(
        f"{link.source} - {link.target}: {link.latency_s * 1e3:.2f} ms, {link.bytes_per_s * 8 / 1e6:,.0f} Mbit/s"
        for link in links
    )
    numbers = {f"{link.source} - {link.target}": asdict(link) for link in links}
    slow = [link.target for link in links if link.bytes_per_s * 8 < 300e6 or link.latency_s > 0.005]
    if slow:
        advice = (
            f"The way to {', '.join(dict.fromkeys(slow))} is slow: models of more than some 100,000 parameters will "
            "wait for it. See whether a faster interface exists (MPI: UCX_NET_DEVICES; Ray: --node-ip-address)."
        )
        return Finding("network", State.WARNING, f"{told}.", advice, numbers)
    return Finding("network", State.OK, f"{told}.", "", numbers)


def check_transport(links: Sequence[Link], by: str) -> Finding:
    """Check which interface the bytes really took."""
    took: dict[str, list[str]] = {}
    for link in links:
        names = [name for name, count in link.counted_bytes.items() if count > link.sent_bytes / 2]
        took.setdefault(" and ".join(sorted(names)), []).append(link.target)
    numbers = {"interfaces": sorted(took)}
    if "" in took:
        found = f"No network interface counted the bytes that {by} sent to {', '.join(took[''])}."
        advice = (
            "The nodes share one kernel, and MPI found its memory: no network was used, so do not measure with it. "
            "To use it: UCX_TLS=tcp,self or MPIR_CVAR_CH4_NETMOD=ofi."
        )
        return Finding("transport", State.WARNING, found, advice, numbers)
    told = "; ".join(f"{name} (to {', '.join(dict.fromkeys(targets))})" for name, targets in took.items())
    return Finding("transport", State.OK, f"{by} sent through {told}, by the counters of the interfaces.", "", numbers)


def check_clocks(links: Sequence[Link]) -> Finding:
    """Check whether the clocks of the nodes agree."""
    numbers = {link.target: link.clock_offset_s for link in links}
    off = [
        f"{link.target} is {abs(link.clock_offset_s):.2f} s {'ahead' if link.clock_offset_s > 0 else 'behind'}"
        for link in links
        if abs(link.clock_offset_s) > 0.1
    ]
    if off:
        advice = "Training does not mind, but times in logs of several nodes can't be compared. Run chrony or ntpd."
        return Finding("clocks", State.WARNING, f"Compared with {links[0].source}: {'; '.join(off)}.", advice, numbers)
    worst = max(abs(link.clock_offset_s) for link in links)
    return Finding("clocks", State.OK, f"All within {worst * 1e3:.2f} ms of {links[0].source}.", "", numbers)


def check_elsewhere(survey: Survey, here: Sequence[Finding]) -> Finding:
    """Check what the checks of single machines found on other nodes.  here: what they found on this one."""
    hosts = ", ".join(dict.fromkeys(host for host, _ in survey.elsewhere))
    known = {(finding.subject, finding.state, finding.advice) for finding in here}
    new = [
        (host, finding)
        for host, finding in survey.elsewhere
        if finding.state in (State.WARNING, State.FAILURE)
        and (finding.subject, finding.state, finding.advice) not in known
    ]
    if not new:
        return Finding("other nodes", State.OK, f"The checks find nothing on {hosts} that they do not find here.")
    failed = any(finding.state is State.FAILURE for _, finding in new)
    told = " ".join(f"On {host}, {finding.subject}: {finding.found}" for host, finding in new)
    advice = " ".join(dict.fromkeys(finding.advice for _, finding in new if finding.advice))
    return Finding("other nodes", State.FAILURE if failed else State.WARNING, told, advice)


def judge(survey: Survey, here: Sequence[Finding]) -> list[Check]:
    """Return the checks that a survey allows, in the order in which they are told.  here: findings about this node."""
    checks = [
        Check("nodes", lambda: check_nodes(survey)),
        Check("placement", lambda: check_placement(survey.processes)),
        Check("alike", lambda: check_alike(survey.processes)),
    ]
    if survey.elsewhere:
        checks.append(Check("other nodes", lambda: check_elsewhere(survey, here)))
    if survey.links:
        checks += [
            Check("network", lambda: check_network(survey.links)),
            Check("transport", lambda: check_transport(survey.links, survey.by)),
            Check("clocks", lambda: check_clocks(survey.links)),
        ]
    return checks


def _by_node(processes: Sequence[Process]) -> list[tuple[str, list[Process]]]:
    """Return the processes of each node, with its host's name."""
    groups = groupby(sorted(processes, key=lambda process: (process.node, process.rank)), lambda process: process.node)
    nodes = [list(group) for _, group in groups]
    return [(ranks[0].host, ranks) for ranks in sorted(nodes, key=lambda ranks: ranks[0].rank)]
