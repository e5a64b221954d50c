"""The Ray backend joins clusters, or has one of its own, and leaves things as they were."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

import dist_relu as dr
from dist_relu.runtime.backends import RayBackend
from dist_relu.runtime.backends.ray.reaper import processes_of
from dist_relu.runtime.world import World
from tests.cases import chaos, long
from tests.programs import TIMEOUT_S, TRAIN, wait_until
from tests.ray_clusters import RayCluster, environment, temporary_folder

PACKAGE = Path(dr.__file__).parent


def python(code: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program as a user would, without `if __name__ == "__main__"`."""
    return subprocess.run(script(code), env=variables, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


@contextmanager
def running(command: list[str], variables: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A program that is spoken to meanwhile; it is killed when it takes too long, or at the end."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=variables, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        backoff = threading.Timer(TIMEOUT_S, process.kill)
        backoff.start()
        try:
            yield process
        finally:
            backoff.cancel()
            process.kill()


def script(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code]


def lines_until(process: subprocess.Popen[str], text: str) -> list[str]:
    """What the program prints, up to a line with `text` in it."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    assert process.stderr is not None
    raise AssertionError("".join(lines) + process.stderr.read())


@pytest.fixture
def newcomer() -> Iterator[dict[str, str]]:
    """The environment of somebody who has no cluster, and uses Ray for the first time."""
    with temporary_folder() as folder:
        yield environment(folder)


def free_cpus(cluster: RayCluster) -> float:
    done = python("import ray; ray.init(); print('free', ray.available_resources().get('CPU', 0))", cluster.environment)
    return float(done.stdout.split("free ")[1])


def pid(world: World, request: None) -> int:
    return os.getpid()


def die_in_the_middle(world: World, request: int) -> None:
    world.barrier.wait()
    if world.rank == request:
        os.kill(os.getpid(), signal.SIGKILL)
    world.barrier.wait()


OWN_CLUSTER = """
import os, dist_relu as dr
def double(world, request):
    return 2 * request + world.rank
with dr.start(2, backend="ray") as coordinator:
    print(coordinator.run(double, 21))
    import ray
    print(ray._private.worker._global_node.get_session_dir_path().partition("/session_")[0])
    input()
print({name for name in os.environ if name.startswith("RAY_AUTH")})
"""


@pytest.mark.chaos
def test_without_a_cluster_one_is_started_that_others_cannot_reach_and_that_leaves_nothing(
    newcomer: dict[str, str],
) -> None:
    with running(script(OWN_CLUSTER), newcomer) as process:
        folder = lines_until(process, "/dist_relu_ray_")[-1].strip()
        assert {address.split(":")[-1] for address in listening(processes_of(folder))} == {"0100007F"}
        out, errors = process.communicate("\n", timeout=TIMEOUT_S)
    assert (out, errors) == ("set()\n", "")
    assert not processes_of(folder)
    assert not Path(folder).exists()
    assert not os.listdir(newcomer["HOME"])


def listening(pids: list[int]) -> set[str]:
    """The addresses on which these processes accept connections, as /proc/net/tcp writes them."""
    sockets = {
        os.readlink(link) for number in pids for link in Path(f"/proc/{number}/fd").iterdir() if link.is_symlink()
    }
    found = set()
    for table, width in (("tcp", 8), ("tcp6", 32)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1].partition(":")[0][width - 8 :])
    return found


@pytest.mark.long
def test_the_cluster_that_ray_start_left_is_found_and_given_back(ray_cluster: RayCluster) -> None:
    assert "RAY_ADDRESS" not in ray_cluster.environment
    with dr.start(backend="ray") as coordinator:
        assert coordinator.workers == 4
        assert coordinator.relu([-1.0, 2.0]).tolist() == [0, 2]
    assert free_cpus(ray_cluster) == 4


@pytest.mark.long
def test_actors_have_readable_names(ray_cluster: RayCluster) -> None:
    code = (
        "import ray, dist_relu as dr; coordinator = dr.start(2, backend='ray'); coordinator.workers\n"
        "for name in ray.util.list_named_actors(): print(name)"
    )
    names = python(code, ray_cluster.environment).stdout.splitlines()
    assert sorted(name.partition(" (")[0] for name in names) == ["dist_relu worker 0 of 2", "dist_relu worker 1 of 2"]


@pytest.mark.long
def test_what_workers_print_comes_with_their_rank(ray_cluster: RayCluster) -> None:
    code = """
import dist_relu as dr
def speak(world, request):
    print("this is", world.rank, "of", request)
with dr.start(2, backend="ray") as coordinator:
    coordinator.run(speak, 2)
    input()
"""
    with running(script(code), {**ray_cluster.environment, "RAY_DEDUP_LOGS": "0"}) as process:
        for _ in range(2):
            line = lines_until(process, "this is ")[-1]
            assert re.search(r"\(worker (\d) pid=\d+\).* this is \1", line)
        process.communicate("\n", timeout=TIMEOUT_S)


@pytest.mark.chaos
def test_a_connection_of_the_users_own_is_used_and_left_alone(ray_cluster: RayCluster) -> None:
    code = """
import ray, signal, dist_relu as dr
ray.init()
for _ in range(2):
    with dr.start(2, backend="ray") as coordinator:
        print(coordinator.workers, ray.is_initialized())
try:
    dr.start(2, backend="ray", address="10.0.0.1:6379")
except dr.BackendError as error:
    print(error)
coordinator = dr.start(2, backend="ray")
coordinator.relu([1.0])
ray.shutdown()
try:
    coordinator.relu([1.0])
except dr.BackendError as error:
    print(error)
coordinator.close()
print(ray.is_initialized())
"""
    lines = python(code, ray_cluster.environment).stdout.splitlines()
    assert lines[:2] == ["2 True", "2 True"]
    assert f"this process is connected to the Ray cluster at {ray_cluster.address}" in lines[2]
    assert lines[3:] == ["The connection to the Ray cluster has ended. Start other workers.", "False"]


class ClosesWhenWarned(logging.Handler):
    """Closes a coordinator as soon as something is said."""

    def __init__(self, coordinator: dr.Coordinator) -> None:
        super().__init__()
        self._coordinator = coordinator
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        self._coordinator.close()


@pytest.mark.chaos
def test_workers_wait_for_cpus_and_say_so(ray_cluster: RayCluster) -> None:
    first = dr.start(3, backend="ray")
    assert first.workers == 3
    listener = ClosesWhenWarned(first)
    logging.getLogger("dist_relu").addHandler(listener)
    try:
        with dr.start(2, backend="ray") as second:
            assert second.workers == 2
    finally:
        logging.getLogger("dist_relu").removeHandler(listener)
        first.close()
    assert listener.messages == ["Waiting for 2 CPUs, 1 for each worker. This Ray cluster has 4, of which free: 1."]


@pytest.mark.chaos
def test_ctrl_c_ends_the_wait_for_cpus(ray_cluster: RayCluster) -> None:
    with dr.start(3, backend="ray") as first:
        assert first.workers == 3
        command = [*TRAIN, "--backend", "ray", "--workers", "2"]
        with running(command, ray_cluster.environment) as process:
            assert process.stderr is not None
            assert "Waiting for 2 CPUs" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            assert process.stderr.read().strip() == "dist-relu: error: interrupted."
            process.wait()
        assert process.returncode == 130
    assert free_cpus(ray_cluster) == 4


@pytest.mark.long
def test_more_workers_than_cpus_share_them(ray_cluster: RayCluster, caplog: pytest.LogCaptureFixture) -> None:
    with dr.start(5, backend="ray") as coordinator:
        assert coordinator.workers == 5
    assert caplog.messages == ["5 workers share the 4 CPUs of this Ray cluster."]


def test_a_killed_actor_is_named_and_the_others_end(ray_cluster: RayCluster) -> None:
    with dr.start(3, backend="ray", on_failure="stop") as coordinator:
        pids = coordinator.run(pid, None)
        name = rf"Worker 1 \(host {socket.gethostname()}, pid {pids[1]}\) (was killed by signal 9|died\. Ray says: )"
        with pytest.raises(dr.WorkerLost, match=name):
            coordinator.run(die_in_the_middle, 1)
        with pytest.raises(dr.WorkerLost, match=name):
            coordinator.run(pid, None)
    assert not [number for number in pids if Path(f"/proc/{number}").exists()]
    assert free_cpus(ray_cluster) == 4


@pytest.mark.long
def test_an_actor_that_died_between_calls_is_named(ray_cluster: RayCluster) -> None:
    with dr.start(2, backend="ray", on_failure="stop") as coordinator:
        pids = coordinator.run(pid, None)
        os.kill(pids[0], signal.SIGKILL)
        with pytest.raises(dr.WorkerLost, match=rf"Worker 0 \(host .*, pid {pids[0]}\)"):
            coordinator.run(pid, None)


SPIN = """
import os, dist_relu as dr
def spin(world, request):
    world.report(os.getpid())
    while True:
        pass
dr.start(2, backend="ray").run(spin, None, lambda pid: print("pid", pid))
"""


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_actors_end_with_their_coordinator(ray_cluster: RayCluster, number: signal.Signals) -> None:
    with running(script(SPIN), ray_cluster.environment) as process:
        pids = [lines_until(process, "pid ")[-1].split()[-1] for _ in range(2)]
        process.send_signal(number)
        process.communicate(timeout=TIMEOUT_S)
    wait_until(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()])
    wait_until(lambda: free_cpus(ray_cluster) == 4)


@pytest.mark.parametrize("number", chaos(signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
def test_a_cluster_of_its_own_ends_with_its_coordinator(newcomer: dict[str, str], number: signal.Signals) -> None:
    with running(script(SPIN), newcomer) as process:
        pids = [lines_until(process, "pid ")[-1].split()[-1] for _ in range(2)]
        (folder,) = {os.readlink(f"/proc/{pid}/fd/1").partition("/session_")[0] for pid in pids}
        assert set(map(int, pids)) < set(processes_of(folder))
        process.send_signal(number)
        process.communicate(timeout=TIMEOUT_S)
    wait_until(lambda: not processes_of(folder) and not Path(folder).exists())


@pytest.mark.long
def test_ctrl_c_ends_the_program_in_one_line(ray_cluster: RayCluster) -> None:
    command = [*TRAIN, "--epochs", "1000000", "--backend", "ray", "--workers", "2"]
    with running(command, ray_cluster.environment) as process:
        lines_until(process, "epoch 1/")
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert errors.strip() == "dist-relu: error: interrupted."


@pytest.mark.long
def test_other_versions_on_a_node_are_named_before_any_work(ray_cluster: RayCluster) -> None:
    code = "import numpy, dist_relu as dr; dr.start; numpy.__version__ = '9.1'; dr.start(2, backend='ray').relu([1.0])"
    done = python(code, ray_cluster.environment)
    assert f"has other versions than this program: numpy 9.1 here, {np.__version__} there" in done.stderr


@pytest.mark.long
def test_other_code_counts_as_another_version(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "dist_relu", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "dist_relu" / "errors.py").open("a") as file:
        file.write("# changed\n")
    code = "from dist_relu.runtime.backends.ray.actor import versions_here; print(versions_here()['dist_relu'])"
    here, there = (
        subprocess.run(script(code), cwd=folder, capture_output=True, text=True, check=True).stdout
        for folder in (PACKAGE.parent, tmp_path)
    )
    assert here != there
    assert here.partition("(")[0] == there.partition("(")[0] == f"{dr.__version__} "


def test_a_wrong_token_is_explained(ray_cluster: RayCluster) -> None:
    wrong = {"RAY_AUTH_TOKEN": "wrong", "RAY_NUM_REDIS_GET_RETRIES": "1"}
    done = python("import dist_relu as dr; dr.start(1, backend='ray')", {**ray_cluster.environment, **wrong})
    assert "refuses this process's token" in done.stderr
    assert "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file with the token" in done.stderr


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", r"No Ray cluster answers at 127\.0\.0\.1:1\. Start one there: ray start --head"),
        ("somewhere", "address='somewhere': expected HOST:PORT"),
        ("ray://127.0.0.1:1", "Run this program on a node of the cluster"),
    ],
)
def test_addresses_that_lead_nowhere_are_refused(address: str, message: str) -> None:
    with pytest.raises(dr.BackendError, match=message):
        dr.start(1, backend="ray", address=address)


@contextmanager
def listener(greeting: bytes) -> Iterator[int]:
    """A server that is no cluster; it says something to everybody, and nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        connections = []

        def greet() -> None:
            with suppress(OSError):
                while True:
                    connections.append(server.accept()[0])
                    connections[-1].sendall(greeting)

        pool.submit(greet)
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for connection in connections:
                connection.close()


@pytest.mark.parametrize("greeting", [b"", b"H", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_servers_of_something_else_are_refused_at_once(greeting: bytes) -> None:
    with (
        listener(greeting) as port,
        pytest.raises(dr.BackendError, match=rf"No Ray cluster answers at 127\.0\.0\.1:{port}"),
    ):
        RayBackend(1, 1, f"127.0.0.1:{port}", connect_timeout_s=0.3)


def test_a_server_of_grpc_that_is_no_cluster_is_refused_within_seconds() -> None:
    settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    with (
        listener(settings) as port,
        pytest.raises(dr.BackendError, match=rf"No Ray cluster answers at 127\.0\.0\.1:{port}"),
    ):
        RayBackend(1, 1, f"127.0.0.1:{port}", connect_timeout_s=1)


def test_a_note_that_leads_to_no_cluster_any_more_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    with listener(b"") as port:
        (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{port}")
        with pytest.raises(dr.BackendError, match="There is no Ray cluster on this machine"):
            RayBackend(1, 1, "auto", connect_timeout_s=0.3)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")
def test_a_note_of_another_user_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    note = tmp_path / "ray" / "ray_current_cluster"
    note.write_text("127.0.0.1:1")
    os.chown(note, 12345, 12345)
    with pytest.raises(dr.BackendError, match="There is no Ray cluster on this machine"):
        dr.start(1, backend="ray", address="auto")
    assert "is from another user (number 12345)" in caplog.text


STOPPED = """
import os, signal, dist_relu as dr
from dist_relu.runtime.backends import RayBackend
def work(world, request):
    world.report((world.rank, os.getpid()))
    while True:
        world.barrier.check()
def stop(who):
    if who[0] == 1:
        print(who[1], flush=True)
        os.kill(who[1], signal.SIGSTOP)
with dr.start(backend=RayBackend(2, worker_timeout_s=2)) as coordinator:
    coordinator.run(work, None, stop)
"""


@pytest.mark.long
def test_an_actor_that_was_stopped_is_named(ray_cluster: RayCluster) -> None:
    done = python(STOPPED, ray_cluster.environment)
    victim = done.stdout.splitlines()[0]
    assert re.search(rf"Worker 1 \(host .*, pid {victim}\) was stopped by a signal", done.stderr), done.stderr
    assert not Path(f"/proc/{victim}").exists()


STARTED = """
import atexit, multiprocessing, os, pathlib, subprocess, sys
import dist_relu as dr
def work(world, request):
    atexit.register(pathlib.Path(f"{request}/{world.rank}").touch)
    away = subprocess.run(["setsid", "sh", "-c", "sleep 1000 >/dev/null & echo $!"], stdout=subprocess.PIPE, check=True)
    return [os.getpid(), subprocess.Popen(["sleep", "1000"]).pid, int(away.stdout)]
def use():
    try:
        coordinator.run(work, None)
    except dr.BackendError as error:
        print("belong to process" in str(error), flush=True)
coordinator = dr.start(2, backend="ray")
pids = coordinator.run(work, sys.argv[1])
child = multiprocessing.get_context("fork").Process(target=use)
child.start()
child.join()
print(*pids[0], *pids[1], *coordinator.run(lambda world, request: os.getpid(), None), flush=True)
input()
coordinator.close()
"""


@pytest.mark.long
@pytest.mark.parametrize("is_killed", [False, *long(True)])
def test_what_functions_have_started_ends_with_the_actors_and_not_with_a_forked_child(
    ray_cluster: RayCluster, tmp_path: Path, is_killed: bool
) -> None:
    with running([*script(STARTED), str(tmp_path)], ray_cluster.environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        *pids, first, second = map(int, process.stdout.readline().split())
        assert (first, second) == (pids[0], pids[3])
        if is_killed:
            process.kill()
        process.communicate("\n", timeout=TIMEOUT_S)
    wait_until(lambda: not any(Path(f"/proc/{number}").exists() for number in pids))
    if not is_killed:
        assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}


def test_an_address_is_for_ray_only() -> None:
    with pytest.raises(dr.BackendError, match=r"address='h:1' is that of a Ray cluster; with backend=\"local\""):
        dr.start(1, backend="local", address="h:1")


def test_spreading_is_for_ray_only() -> None:
    with pytest.raises(dr.BackendError, match=r"spread=True is for the nodes of a Ray cluster; with backend=\"local\""):
        dr.start(1, backend="local", spread=True)


def test_nodes_that_a_cluster_has_not_are_refused(ray_cluster: RayCluster) -> None:
    message = r"workers=2 on nodes=2 need 1 CPU on each\. This Ray cluster's nodes have: 4\. Ask for fewer"
    with pytest.raises(dr.errors.UnsuitableBackend, match=message):
        dr.start(2, backend="ray", nodes=2)


def test_numbers_of_nodes_are_for_ray_only() -> None:
    with pytest.raises(dr.BackendError, match=r"nodes=2 is for a Ray cluster; with backend=\"local\" there is none"):
        dr.start(2, backend="local", nodes=2)
