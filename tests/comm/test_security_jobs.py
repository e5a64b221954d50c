"""Strangers on every socket that a job listens on, and other users of the machine, while it trains."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest

from dist_relu.runtime.backends.local.supervisor import descendants
from tests.cases import chaos, long
from tests.comm.listening import HERE, is_cut_off, local_sockets_of, ports_of, resident_bytes, strangers
from tests.digests import TRAININGS
from tests.programs import ROOT, mpirun

PROGRAM = """
import json, sys, threading
import dist_relu as dr
from tests.digests import TRAININGS

asked, over = threading.Event(), threading.Event()

def listen():
    for _ in sys.stdin:
        asked.set()
    over.set()

threading.Thread(target=listen, daemon=True).start()
with dr.start(2, backend=sys.argv[1]) as coordinator:
    data, digests = dr.data.load("digits").train, set()
    while not over.is_set():
        is_asked = asked.is_set()
        digests.add(TRAININGS[0].digest_on(coordinator, data))
        if is_asked:
            asked.clear()
            print(json.dumps(list(digests)), flush=True)
"""
"""Trains again and again, and says with which digests, the next one included, when it is asked."""

MB = 1_000_000
NUM_STRANGERS = 24
NOBODY = 65534
DIGESTS = [TRAININGS[0].digest]

RAY_METHODS = (
    "CoreWorkerService/PushTask",
    "NodeManagerService/RequestWorkerLease",
    "ObjectManagerService/Push",
    "ActorInfoGcsService/RegisterActor",
)
"""What each of Ray's servers does for those whom it trusts."""


class TrainingJob:
    """A job that trains again and again."""

    def __init__(self, backend: str, process: subprocess.Popen[str]) -> None:
        self.backend = backend
        self._process = process

    @property
    def pids(self) -> list[int]:
        return [self._process.pid, *descendants(self._process.pid)]

    def digests(self) -> list[str]:
        """What all trainings have ended with, up to one that begins from now on."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        digests: list[str] = json.loads(self._process.stdout.readline())
        return digests


@pytest.fixture(scope="module", params=["local", *long("mpi"), *chaos("ray")])
def job(request: pytest.FixtureRequest) -> Iterator[TrainingJob]:
    command = [sys.executable, "-c", PROGRAM, request.param]
    if request.param == "mpi":
        command = mpirun(2, *command)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        training_job = TrainingJob(request.param, process)
        assert training_job.digests() == DIGESTS
        yield training_job
        process.communicate()
        assert process.returncode == 0


def test_strangers_on_every_port_take_no_memory_and_disturb_no_training(job: TrainingJob) -> None:
    ports = ports_of(job.pids)
    assert bool(ports) == (job.backend != "local")
    for port in ports:
        before_bytes = resident_bytes(port.pid)
        there = strangers(port.number, NUM_STRANGERS)
        assert is_cut_off(port.number)
        assert resident_bytes(port.pid) - before_bytes < NUM_STRANGERS * MB
        for connection in there:
            connection.close()
    assert job.digests() == DIGESTS


def test_a_job_on_one_machine_listens_on_the_loopback_address(job: TrainingJob) -> None:
    ports = ports_of(job.pids)
    if job.backend == "mpi":  # whose launcher listens for its helpers on other hosts, but no rank does
        assert {port.pid for port in ports} == {job.pids[0]}
    else:
        assert all(port.is_local for port in ports)


@pytest.mark.parametrize("job", chaos("ray"), indirect=True)
def test_every_port_of_a_ray_cluster_of_ours_asks_for_its_token(job: TrainingJob) -> None:
    for port in ports_of(job.pids):
        for token in (None, "wrong"):
            assert _asks_for_token(port.number, token), port
    assert job.digests() == DIGESTS


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_reaches_neither_memory_nor_sockets_nor_files(job: TrainingJob) -> None:
    pids = job.pids
    sockets = [path for path in local_sockets_of(pids) if not path.startswith("@")]
    files = [f"/proc/{pid}/{what}" for pid in pids for what in ("environ", "mem", "fd/1", "fd/7")]
    for folder in {path.partition("/t/session_")[0] for path in sockets}:
        files += [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]

    def tried() -> list[str]:
        return [
            *_not_refused(files, lambda path: os.close(os.open(path, os.O_RDONLY))),
            *_not_refused(sockets, _connect),
            *_not_refused(map(str, pids), lambda pid: os.kill(int(pid), 0)),
        ]

    assert _as_nobody(tried) == []
    assert job.digests() == DIGESTS


def _asks_for_token(port: int, token: str | None) -> bool:
    """Whether a server of Ray, of gRPC or else of HTTP, does nothing for one with another token, or without."""
    grpc: Any = pytest.importorskip("grpc")
    answers = set()
    with grpc.insecure_channel(f"{HERE}:{port}") as channel:
        for method in RAY_METHODS:
            metadata = [("authorization", f"Bearer {token}")] if token else []
            try:
                channel.unary_unary(f"/ray.rpc.{method}")(b"", metadata=metadata, timeout=10)
                answers.add("OK")
            except grpc.RpcError as error:
                answers.add(error.code().name)
    if answers <= {"UNAUTHENTICATED", "UNIMPLEMENTED"} and "UNAUTHENTICATED" in answers:
        return True
    with socket.create_connection((HERE, port), 10) as connection:
        said = f"authorization: Bearer {token}\r\n" if token else ""
        connection.sendall(f"POST /get_or_create_runtime_env HTTP/1.1\r\nhost: a\r\n{said}\r\n".encode())
        return connection.recv(1000).split()[1] in (b"401", b"403")


def _not_refused(things: Iterable[str], attempt: Callable[[str], object]) -> list[str]:
    succeeded = []
    for thing in things:
        with suppress(PermissionError, FileNotFoundError, ProcessLookupError):  # some have ended
            attempt(thing)
            succeeded.append(thing)
    return succeeded


def _connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)


def _as_nobody(function: Callable[[], Sequence[str]]) -> list[str]:
    """What a function returns in a process of another user."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(writing, json.dumps(function()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        said = file.read()
    os.waitpid(child, 0)
    result: list[str] = json.loads(said)
    return result
