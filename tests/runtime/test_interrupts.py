"""Ctrl-C at any moment leaves the workers usable, also where other threads of the program may get the signal."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from dist_relu.runtime.backends.interrupts import without_interrupts
from tests.cases import long
from tests.programs import mpirun, run

PROGRAM = """
import os, random, signal, sys, threading, time
import dist_relu as dr

NUM_INTERRUPTS = 20

def work(world, num_waits):
    for i in range(num_waits):
        world.barrier.wait()
        world.report(i)
    return world.rank, bytes(200_000)

def interrupt(delay_s):
    time.sleep(delay_s)
    os.kill(os.getpid(), signal.SIGINT)

with dr.start(backend=sys.argv[1]) as coordinator:
    ranks = list(range(coordinator.workers))
    for _ in range(NUM_INTERRUPTS):
        other = threading.Thread(target=interrupt, args=[random.uniform(0, 0.004)])
        try:
            other.start()
            while True:
                coordinator.run(work, random.choice([1, 5, 30]))
        except KeyboardInterrupt:
            other.join()
        assert [rank for rank, _ in coordinator.run(work, 5)] == ranks
print("usable")
"""


def test_ctrl_c_waits_for_the_end_of_a_message() -> None:
    ended = threading.Event()
    other = threading.Thread(target=ended.wait)
    other.start()
    steps = []

    def send() -> None:
        with without_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            steps.append("end of the message")

    with pytest.raises(KeyboardInterrupt):
        send()
    ended.set()
    other.join()
    assert steps == ["end of the message"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("backend", ["local", *long("serial", "mpi")])
def test_workers_are_usable_after_ctrl_c_at_any_moment(tmp_path: Path, backend: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(PROGRAM)
    command = [sys.executable, str(script), backend]
    done = run(mpirun(2, *command) if backend == "mpi" else command)
    assert (done.returncode, done.stdout) == (0, "usable\n"), done.stderr
