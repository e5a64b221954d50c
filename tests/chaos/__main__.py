"""Disturb trainings by the hundred, and print what came of it: python -m tests.chaos [--kills 300] [--only WORD ...].

The exit code is 1 unless everything was survived, with equal bits, and nothing was left behind.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from dist_relu.core.progress_log import PROGRESS_LOG
from tests.chaos import strikes
from tests.chaos.coordinators import kill_coordinator
from tests.chaos.disturbances import Plan, carry_out, plan, resize
from tests.chaos.strikes import PHASES, Strike
from tests.chaos.table import Row, table
from tests.chaos.trainings import CNN, MLP, RNN
from tests.ray_clusters import ray_start

_LONGEST_S = 300.0
"""After which a training hangs."""

Fill = Callable[[Row], None]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="how many single workers are killed, by default 300")
    parser.add_argument("--others", type=int, default=3, help="how often each of the other disturbances, by default 3")
    parser.add_argument("--sizes", type=int, default=50, help="how often the number of workers changes, by default 50")
    parser.add_argument("--only", nargs="*", default=[""], metavar="WORD", help="rows with these words, such as ray")
    options = parser.parse_args()
    logging.getLogger(PROGRESS_LOG).setLevel(logging.ERROR)
    chosen = {
        name: fill
        for name, fill in rows(options.kills, options.others, options.sizes).items()
        if any(word in name for word in options.only)
    }
    done = []
    with _cluster(4) if any("ray" in name and "node" not in name for name in chosen) else _nothing():
        for name in [name for name in chosen if "node" not in name]:
            done.append(_filled(name, chosen[name]))
    for name in [name for name in chosen if "node" in name]:
        done.append(_filled(name, chosen[name]))
    print(table(done))
    for row in done:
        if row.phases:
            drawn = ", ".join(f"{phase} {times}" for phase, times in row.phases.most_common())
            print(f"{row.disturbance}: {drawn}")
    return 0 if all(row.is_good for row in done) else 1


def rows(kills: int, others: int, sizes: int) -> dict[str, Fill]:
    """What fills each row of the table, by its name."""
    found: dict[str, Fill] = {}
    for backend in ("local", "ray"):
        found |= {
            f"SIGKILL of a worker, {backend}": _kills(backend, kills // 2),
            f"SIGKILL of two at once, {backend}": _strikes(backend, others, strikes.kill_two, 2),
            f"SIGKILL of two, one in recovery, {backend}": _strikes(backend, others, recovering=True),
            f"SIGSTOP of a worker, {backend}": _strikes(backend, others, strikes.stop),
            f"SIGKILL of the coordinator, --resume, {backend}": _coordinators(backend, others),
            f"number of workers changes, {backend}": lambda row, backend=backend: resize(backend, sizes, row),  # type: ignore[misc]
        }
        if backend == "local":
            found["SIGKILL of the supervisor, local"] = _strikes(backend, others, strikes.kill_supervisor)
        if strikes.can_limit_memory():
            found[f"out of memory in a worker, {backend}"] = _out_of_memory(backend, others)
    found["raylet of a node with two of four workers, ray"] = _nodes(others)
    return found


def _kills(backend: str, kills: int) -> Fill:
    def fill(row: Row) -> None:
        for number in itertools.count():
            if row.times >= kills:
                return
            _carry_out(plan(number, backend, kills - row.times), row)

    return fill


def _strikes(
    backend: str, times: int, strike: Strike = strikes.kill, each: int = 1, *, recovering: bool = False
) -> Fill:
    def fill(row: Row) -> None:
        for number in itertools.count():
            if row.times >= times * each:
                return
            phase = PHASES[number % len(PHASES)]
            phases = [phase, "recovery"] if recovering else [phase]
            _carry_out(_plan(backend, number, phases), row, strike, each)

    return fill


def _out_of_memory(backend: str, times: int) -> Fill:
    def fill(row: Row) -> None:
        for number in range(times):
            planned = replace(_plan(backend, number, ["pass"]), training=CNN)  # which asks for most in a validation
            _carry_out(planned, row, strikes.take_memory)
        strikes.remove_memory_groups()

    return fill


def _coordinators(backend: str, times: int) -> Fill:
    def fill(row: Row) -> None:
        for number in range(times):
            kill_coordinator(backend, number, row)

    return fill


def _nodes(times: int) -> Fill:
    def fill(row: Row) -> None:
        for number in range(times):
            with _cluster(2, 2):
                _carry_out(_plan("ray", number, ["pass"], workers=4), row, strikes.kill_node)

    return fill


def _plan(backend: str, number: int, phases: Sequence[str], workers: int = 3) -> Plan:
    return Plan(
        training=(MLP, CNN, RNN)[number % 3],
        backend=backend,
        workers=workers,
        on_failure="replace",
        phases=phases,
        seed=number,
    )


def _carry_out(planned: Plan, row: Row, strike: Strike = strikes.kill, each: int = 1) -> None:
    """See `carry_out`; shows what was done, and where all threads are when it hangs."""
    faulthandler.dump_traceback_later(_LONGEST_S, exit=True)
    before, began = row.times, time.monotonic()
    carry_out(planned, row, strike, each)
    faulthandler.cancel_dump_traceback_later()
    print(f"{row.disturbance}: {row.times - before} in {time.monotonic() - began:.1f} s, {planned}", file=sys.stderr)


def _filled(name: str, fill: Fill) -> Row:
    row = Row(name)
    fill(row)
    print(table([row]), *row.troubles, sep="\n", file=sys.stderr)
    return row


@contextmanager
def _cluster(*num_cpus: int) -> Iterator[None]:
    """Let this process find a Ray cluster with nodes of so many CPUs."""
    before = dict(os.environ)
    with ray_start(*num_cpus) as cluster:
        os.environ.update({name: value for name, value in cluster.environment.items() if name.startswith("RAY_")})
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


if __name__ == "__main__":
    sys.exit(main())
