"""A Ray cluster that was started for one process alone, whatever dies of it, and whoever started it."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from dist_relu.runtime.backends.ray.reaper import processes_of
from tests.cases import chaos, long
from tests.programs import TIMEOUT_S, wait_until
from tests.runtime.test_ray import lines_until, newcomer, running, script

__all__ = ["newcomer"]


def children(pid: int, name: str) -> list[int]:
    """The processes that `pid` has started and that the kernel calls `name`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            start, _, rest = (folder / "stat").read_text(errors="replace").rpartition(")")
            if start.partition("(")[2] == name and rest.split()[1] == str(pid):
                found.append(int(folder.name))
    return found


START = """
import dist_relu as dr
try:
    dr.start(2, backend="ray")
except dr.BackendError as error:
    print(error)
"""


@pytest.mark.parametrize("name", [*long("raylet"), *chaos("gcs_server")])
def test_a_server_of_ray_that_dies_while_the_cluster_starts_is_told_at_once(
    newcomer: dict[str, str], name: str
) -> None:
    with running(script(START), newcomer) as process:
        wait_until(lambda: children(process.pid, name) != [])
        (victim,) = children(process.pid, name)
        os.kill(victim, signal.SIGKILL)
        out, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (0, "")
    assert f"A process of Ray (pid {victim}) was ended while it started a cluster. Start this program again" in out


USE = """
import sys, threading
import dist_relu as dr
def rank(world, request):
    return world.rank
def start():
    global coordinator
    coordinator = dr.start(2, backend="ray")
thread = threading.Thread(target=start)
thread.start()
thread.join()
print(coordinator.run(rank, None), flush=True)
import ray
print(ray._private.worker._global_node.get_session_dir_path(), flush=True)
input()
try:
    print(coordinator.run(rank, None))
except dr.BackendError as error:
    print(error)
coordinator.close()
with dr.start(2, backend="local") as others:
    print(others.run(rank, None))
"""


@pytest.mark.chaos
def test_a_cluster_outlives_the_thread_that_started_it_and_goes_even_if_nobody_is_left_to_clear_up(
    newcomer: dict[str, str],
) -> None:
    with running(script(USE), newcomer) as process:
        folder = lines_until(process, "/dist_relu_ray_")[-1].strip().partition("/session_")[0]
        (reaper,) = (pid for pid in children(process.pid, "python") if _has(pid, "reaper.py"))
        os.kill(reaper, signal.SIGKILL)
        out, errors = process.communicate("\n", timeout=TIMEOUT_S)
    assert (out, errors) == ("[0, 1]\n[0, 1]\n", "")
    assert not processes_of(folder)
    assert not Path(folder).exists()


@pytest.mark.chaos
def test_a_cluster_that_has_lost_its_server_is_told_of_and_the_program_goes_on(newcomer: dict[str, str]) -> None:
    with running(script(USE), newcomer) as process:
        folder = lines_until(process, "/dist_relu_ray_")[-1].strip().partition("/session_")[0]
        (victim,) = children(process.pid, "gcs_server")
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: not processes_of(folder) or not _has(victim, folder))
        out, _ = process.communicate("\n", timeout=TIMEOUT_S)
    assert out == f"A process of Ray (pid {victim}) ended, and with it the cluster. Start other workers.\n[0, 1]\n"
    assert not Path(folder).exists()


FORK = """
import os, sys, time
import dist_relu as dr
def rank(world, request):
    return world.rank
coordinator = dr.start(2, backend="ray")
print(coordinator.run(rank, None), flush=True)
child = os.fork()
if not child:
    try:
        dr.start(2, backend="ray")
    except dr.BackendError as error:
        print(error)
    sys.exit()
print(os.waitpid(child, 0)[1], coordinator.run(rank, None), flush=True)
helper = os.fork()
if not helper:
    time.sleep(1000)
import ray
print(helper, ray._private.worker._global_node.get_session_dir_path(), flush=True)
time.sleep(1000)
"""


@pytest.mark.chaos
def test_forked_processes_neither_use_the_cluster_nor_end_it_nor_keep_it(newcomer: dict[str, str]) -> None:
    with running(script(FORK), newcomer) as process:
        lines = lines_until(process, "/dist_relu_ray_")
        helper, _, path = lines[-1].strip().partition(" ")
        folder = path.partition("/session_")[0]
        process.kill()
        try:
            wait_until(lambda: not processes_of(folder) and not Path(folder).exists())
        finally:
            os.kill(int(helper), signal.SIGKILL)
    assert "This process was forked from one that is connected to Ray" in lines[1]
    assert lines[2] == "0 [0, 1]\n"


def _has(pid: int, word: str) -> bool:
    """Whether a living process was called with `word`."""
    return word in Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
