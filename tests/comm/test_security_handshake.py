"""Who does not know the secret of a listener gets nothing there, takes no memory, and keeps nobody out."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from dist_relu.comm.handshake import Endpoint, connect
from tests.cases import chaos
from tests.comm.listening import HERE, is_cut_off, resident_bytes, strangers
from tests.programs import TIMEOUT_S

NONCE_BYTES, REQUEST_BYTES, PROOF_BYTES = 32, 72, 32
SECRET = bytes(range(32))

PROGRAM = """
import sys
from dist_relu.comm.handshake import Listener

listener = Listener(bytes(range(32)), ["127.0.0.1"], on="127.0.0.1")
print(listener.endpoint.port, flush=True)
while True:
    if accepted := listener.accept(600):
        print(accepted[0], flush=True)
        accepted[1].close()
"""


class ListeningProcess:
    """A process that accepts those who know the secret, one after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        self.port = self.next_number()

    def accepts(self, number: int) -> bool:
        """Whether one of us who gives that number is the next to be accepted."""
        connection = connect(Endpoint([HERE], self.port), SECRET, number)
        if connection is None:
            return False
        connection.close()
        return self.next_number() == number

    def next_number(self) -> int:
        """The number that the next one to be accepted gave."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def listening() -> Iterator[ListeningProcess]:
    process = ListeningProcess()
    yield process
    process.end()


@pytest.fixture
def memory(listening: ListeningProcess) -> Iterator[None]:
    """The listening process must not grow by a MB, whatever goes on meanwhile."""
    assert listening.accepts(1)
    before_bytes = resident_bytes(listening.pid)
    yield
    assert listening.accepts(2)
    assert resident_bytes(listening.pid) - before_bytes < 1_000_000


def stranger(listening: ListeningProcess) -> socket.socket:
    return socket.create_connection((HERE, listening.port), TIMEOUT_S)


def answer_to(listening: ListeningProcess, request: bytes) -> bytes:
    """What follows the nonce for one who says this."""
    with stranger(listening) as connection:
        assert len(connection.recv(NONCE_BYTES)) == NONCE_BYTES
        connection.sendall(request)
        try:
            return connection.recv(1000)
        except ConnectionResetError:
            return b""


@pytest.mark.usefixtures("memory")
def test_who_guesses_the_secret_is_refused(listening: ListeningProcess) -> None:
    assert connect(Endpoint([HERE], listening.port), b"guessed", 7) is None


@pytest.mark.usefixtures("memory")
def test_who_repeats_what_another_one_has_said_is_refused(listening: ListeningProcess) -> None:
    said = []
    with socket.create_server((HERE, 0)) as between:

        def listen_in() -> None:
            theirs, _ = between.accept()
            with theirs, stranger(listening) as ours:
                theirs.sendall(ours.recv(NONCE_BYTES))
                said.append(theirs.recv(REQUEST_BYTES, socket.MSG_WAITALL))
                ours.sendall(said[0])
                theirs.sendall(ours.recv(PROOF_BYTES))

        thread = threading.Thread(target=listen_in)
        thread.start()
        through = connect(Endpoint([HERE], between.getsockname()[1]), SECRET, 9)
        thread.join()
    assert through is not None
    through.close()
    assert listening.next_number() == 9
    assert len(said[0]) == REQUEST_BYTES
    assert answer_to(listening, said[0]) == b""


@pytest.mark.usefixtures("memory")
def test_who_sends_100_megabytes_is_cut_off(listening: ListeningProcess) -> None:
    assert is_cut_off(listening.port)


@pytest.mark.usefixtures("memory")
def test_hundreds_who_stay_keep_nobody_out(listening: ListeningProcess) -> None:
    there = strangers(listening.port, 500)
    assert listening.accepts(7)
    for connection in there:
        connection.close()


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("number", [3_000, *chaos(100_000)])
def test_any_number_of_malformed_messages_is_refused(
    listening: ListeningProcess, rng: np.random.Generator, number: int
) -> None:
    for i in range(number):
        size = int(rng.integers(1, 2 * REQUEST_BYTES)) if i % 2 else REQUEST_BYTES
        with stranger(listening) as connection:
            connection.sendall(rng.bytes(size))
            if i % 100 == 0 and size >= REQUEST_BYTES:
                assert answer_to(listening, os.urandom(size)) == b""
