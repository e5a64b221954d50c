"""Workers that send what nobody expects are lost, by name; what they announce costs no memory."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import numpy as np
import pytest

from dist_relu.comm.tcp import TcpChannel
from dist_relu.errors import WorkerLost
from tests.cases import chaos
from tests.comm.listening import resident_bytes
from tests.programs import TIMEOUT_S, wait_until

HEADER = struct.Struct("!qQQ")  # task, tag, bytes that follow


class Victim:
    """A worker that has a connection with worker 1, whose end is `peer`."""

    def __init__(self, max_early_bytes: int | None = None) -> None:
        ours, self.peer = socket.socketpair()
        ours.setblocking(False)
        self.peer.settimeout(TIMEOUT_S)
        self.channel = TcpChannel({1: ours}, max_early_bytes)
        self.channel.begin(1)

    def want(self, size_bytes: int, tag: int = 0) -> None:
        self.channel.receive(np.zeros(size_bytes, np.uint8), 1, tag, lambda: None)

    def loss(self) -> str:
        """What the worker is told when it waits for worker 1."""
        with pytest.raises(WorkerLost) as caught:
            wait_until(lambda: self.channel.progress() and False)
        return str(caught.value)

    def close(self) -> None:
        self.channel.close()
        self.peer.close()


@pytest.fixture
def victim() -> Iterator[Victim]:
    one = Victim(max_early_bytes=100_000)
    yield one
    one.close()


NO_MESSAGE = "Worker 1 has sent what is no message of this job."


@pytest.mark.parametrize(
    "content",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        bytes(range(24)),
        HEADER.pack(-1, 0, 8),
        HEADER.pack(1, 1 << 16, 8),
        HEADER.pack(1, 0, 1 << 62),
    ],
    ids=["words", "noise", "task", "tag", "size"],
)
def test_what_is_no_message_loses_its_sender(victim: Victim, content: bytes) -> None:
    victim.want(8)
    victim.peer.sendall(content)
    assert victim.loss() == NO_MESSAGE


@pytest.mark.parametrize("size", [0, 7, 9, 1 << 30])
def test_a_message_of_another_size_loses_its_sender(victim: Victim, size: int) -> None:
    victim.want(8, tag=5)
    victim.peer.sendall(HEADER.pack(1, 5, size))
    assert victim.loss() == f"Worker 1 has sent {size} bytes where 8 were expected (tag 5)."


def test_a_message_of_another_size_that_came_early_loses_its_sender(victim: Victim) -> None:
    victim.peer.sendall(HEADER.pack(1, 5, 3) + b"abc")
    wait_until(victim.channel.progress)
    with pytest.raises(WorkerLost, match=r"^Worker 1 has sent 3 bytes where 8 were expected \(tag 5\)\.$"):
        victim.want(8, tag=5)


def test_a_message_of_another_size_that_is_wanted_while_it_comes_loses_its_sender(victim: Victim) -> None:
    victim.peer.sendall(HEADER.pack(1, 5, 3) + b"ab")
    wait_until(victim.channel.progress)
    victim.want(8, tag=5)
    victim.peer.sendall(b"c")
    assert victim.loss() == "Worker 1 has sent 3 bytes where 8 were expected (tag 5)."


TOO_MUCH = "Worker 1 has sent more than 100000 bytes that nobody wants."


def test_a_worker_that_announces_more_than_anybody_wants_is_lost(victim: Victim) -> None:
    victim.want(8)
    victim.peer.sendall(HEADER.pack(1, 5, 1 << 35))
    assert victim.loss() == TOO_MUCH


@pytest.mark.parametrize("task", [1, 2])
def test_a_worker_that_goes_on_sending_what_nobody_wants_is_lost(victim: Victim, task: int) -> None:
    victim.want(8)
    victim.peer.sendall(b"".join(HEADER.pack(task, tag, 0) for tag in range(1, 200)))
    assert victim.loss() == TOO_MUCH


def test_what_was_never_wanted_is_forgotten_with_its_task(victim: Victim) -> None:
    for task in range(1, 10):
        victim.peer.sendall(HEADER.pack(task, 5, 90_000) + bytes(90_000))
        wait_until(lambda: victim.channel.progress() and not victim.channel.is_busy)
        victim.channel.begin(task + 1)
    victim.want(8)
    victim.peer.sendall(HEADER.pack(10, 0, 8) + bytes(8))
    wait_until(lambda: victim.channel.progress() and not victim.channel.is_busy)


def malformed(rng: np.random.Generator) -> bytes:
    """A message that no worker would send to one that waits for 8 bytes with tag 0."""
    size = int(rng.integers(1, 64))
    match rng.integers(3):
        case 0:
            return HEADER.pack(1, 0, int(rng.integers(9, 1 << 39))) + rng.bytes(size)
        case 1:
            return HEADER.pack(1, int(rng.integers(1 << 16, 1 << 63)), 8) + rng.bytes(8)
        case _:
            return b"\xff" + rng.bytes(HEADER.size + size)


@pytest.mark.parametrize("number", [2_000, *chaos(100_000)])
def test_any_number_of_malformed_messages_takes_no_memory(rng: np.random.Generator, number: int) -> None:
    before_bytes = 0
    for i in range(number):
        one = Victim()
        one.want(8)
        one.peer.sendall(malformed(rng))
        assert one.loss().startswith("Worker 1 has sent")
        one.close()
        if i == number // 4:
            before_bytes = resident_bytes(os.getpid())
    assert resident_bytes(os.getpid()) - before_bytes < 10_000_000  # which is 100 bytes for each of 100,000
