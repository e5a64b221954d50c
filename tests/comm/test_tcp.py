"""Messages over TCP arrive whole, in their order, where they are wanted, and only in their own call."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from dist_relu.comm.handshake import Listener, connect
from dist_relu.comm.tcp import TcpChannel, connect_nodes
from dist_relu.errors import BackendError, WorkerLost
from tests.programs import TIMEOUT_S, wait_until
from tests.twin import Array

HERE = "127.0.0.1"
SECRET = b"a secret"
ADDRESSES = Path("/proc/net/if_inet6")
HAS_IP_VERSION_6 = ADDRESSES.exists() and f"{1:032}" in ADDRESSES.read_text()


def channels(nodes: Sequence[range]) -> list[TcpChannel]:
    """The channels of all workers, connected."""
    own = [Listener(SECRET, [HERE], on=HERE) for ranks in nodes for _ in ranks]
    places = [listener.endpoint for listener in own]
    with ThreadPoolExecutor(len(own)) as pool:
        return list(pool.map(lambda rank: connect_nodes(rank, nodes, own[rank], places, SECRET), range(len(own))))


@pytest.fixture
def pair() -> Iterator[tuple[TcpChannel, TcpChannel]]:
    one, other = channels([range(1), range(1, 2)])
    for channel in (one, other):
        channel.begin(1)
    yield one, other
    one.close()
    other.close()


class Log:
    """What is through, in order."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def note(self, what: object) -> None:
        self.seen.append(what)


def move(*channels: TcpChannel, until: int, log: Log) -> None:
    """Let messages move until so many are through."""

    def enough() -> bool:
        for channel in channels:
            channel.progress()
        return len(log.seen) >= until

    wait_until(enough)
    assert len(log.seen) == until


def numbers(size: int, first: int = 0) -> Array:
    return np.arange(first, first + size, dtype=np.float32)


def test_large_messages_both_ways_at_once(pair: tuple[TcpChannel, TcpChannel]) -> None:
    log, size = Log(), 5_000_000
    received = [np.zeros(size, np.float32) for _ in pair]
    for me, channel in enumerate(pair):
        channel.receive(received[me], 1 - me, 7, lambda: log.note("in"))
        channel.send(numbers(size, me), 1 - me, 7, lambda: log.note("out"))
        assert channel.is_busy
    move(*pair, until=4, log=log)
    assert (received[0] == numbers(size, 1)).all()
    assert (received[1] == numbers(size, 0)).all()
    assert not any(channel.is_busy for channel in pair)


def test_messages_with_a_tag_come_in_their_order_and_those_with_another_by_themselves(
    pair: tuple[TcpChannel, TcpChannel],
) -> None:
    one, other = pair
    log = Log()
    for value, tag in ((1, 5), (2, 6), (3, 5)):
        one.send(np.array([value]), 1, tag, lambda: log.note("out"))
    move(one, other, until=3, log=log)
    wanted = [np.zeros(1, int) for _ in range(3)]
    for array, tag in zip(wanted, (6, 5, 5), strict=True):
        other.receive(array, 0, tag, lambda: log.note("in"))
    move(one, other, until=6, log=log)
    assert [int(array[0]) for array in wanted] == [2, 1, 3]


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_what_comes_before_it_is_wanted_is_kept(pair: tuple[TcpChannel, TcpChannel], size: int) -> None:
    one, other = pair
    log = Log()
    one.send(numbers(size), 1, 0, lambda: log.note("out"))
    for _ in range(100):  # a part of it has come when it is asked for, or all
        other.progress()
    array = np.zeros(size, np.float32)
    other.receive(array, 0, 0, lambda: log.note("in"))
    move(one, other, until=2, log=log)
    assert (array == numbers(size)).all()


def test_what_belongs_to_a_later_call_waits_for_it(pair: tuple[TcpChannel, TcpChannel]) -> None:
    one, other = pair
    log = Log()
    one.begin(2)
    one.send(np.array([22]), 1, 0, lambda: log.note("out"))
    array = np.zeros(1, int)
    other.receive(array, 0, 0, lambda: log.note("too early"))
    move(one, other, until=1, log=log)
    other.begin(2)
    other.receive(array, 0, 0, lambda: log.note("in"))
    move(one, other, until=2, log=log)
    assert log.seen == ["out", "in"]
    assert array[0] == 22


def test_a_channel_is_busy_until_everybody_has_heard_that_his_message_is_through(
    pair: tuple[TcpChannel, TcpChannel],
) -> None:
    one, other = pair
    log, received = Log(), numbers(3)
    other.receive(received, 0, 0, lambda: log.note("received"))
    one.send(numbers(3, first=7), 1, 0, lambda: log.note("sent"))
    assert one.is_busy
    move(one, other, until=2, log=log)
    assert not one.is_busy
    assert not other.is_busy


def test_messages_of_a_call_that_was_given_up_go_nowhere(pair: tuple[TcpChannel, TcpChannel]) -> None:
    one, other = pair
    log, size = Log(), 5_000_000
    stale = np.zeros(size, np.float32)
    other.receive(stale, 0, 0, lambda: log.note("stale"))
    one.send(numbers(size, 1), 1, 0, lambda: log.note("stale"))  # more than goes out at once
    one.send(numbers(size, 1), 1, 0, lambda: log.note("stale"))
    wait_until(lambda: other.progress() and bool(stale.any()))
    for channel in pair:
        channel.begin(2)
    stale[:] = 0
    fresh = np.zeros(3, np.float32)
    other.receive(fresh, 0, 0, lambda: log.note("in"))
    one.send(numbers(3, 5), 1, 0, lambda: log.note("out"))
    move(one, other, until=2, log=log)
    assert fresh.tolist() == [5, 6, 7]
    assert not stale.any()


def test_workers_of_other_nodes_are_connected_each_with_each() -> None:
    nodes = [range(2), range(2, 3), range(3, 5)]
    all_of_them = channels(nodes)
    log = Log()
    received = {}
    for rank, channel in enumerate(all_of_them):
        for ranks in nodes:
            for other in ranks if rank not in ranks else ():
                received[rank, other] = np.zeros(1, int)
                channel.receive(received[rank, other], other, 0, lambda: log.note("in"))
                channel.send(np.array([10 * rank + other]), other, 0, lambda: log.note("out"))
    move(*all_of_them, until=2 * len(received), log=log)
    assert all(array[0] == 10 * other + rank for (rank, other), array in received.items())
    assert len(received) == 16
    for channel in all_of_them:
        channel.close()


def test_who_hangs_up_is_missed_when_something_is_wanted_from_there(pair: tuple[TcpChannel, TcpChannel]) -> None:
    one, other = pair
    log = Log()
    one.send(np.array([1]), 1, 0, lambda: log.note("out"))
    move(one, until=1, log=log)
    one.close()
    for _ in range(3):
        other.progress()
    array = np.zeros(1, int)
    other.receive(array, 0, 0, lambda: log.note("in"))
    move(other, until=2, log=log)  # it had been sent before
    other.receive(array, 0, 0, lambda: log.note("in"))
    with pytest.raises(WorkerLost, match=r"Worker 0 has closed its connection\."):
        wait_until(lambda: other.progress() and False)


def test_who_does_not_come_is_named() -> None:
    ours, theirs = Listener(SECRET, [HERE], on=HERE), Listener(SECRET, [HERE], on=HERE)
    theirs.close()
    nodes, endpoints = [range(1), range(1, 2)], [ours.endpoint, theirs.endpoint]
    with pytest.raises(
        BackendError, match=rf"no connection with worker 1 at 127\.0\.0\.1, port {theirs.endpoint.port}"
    ):
        connect_nodes(0, nodes, ours, endpoints, SECRET, timeout_s=0.2)


@pytest.mark.skipif(not HAS_IP_VERSION_6, reason="this machine has no loopback of IP version 6")
def test_a_listener_may_be_at_an_address_of_ip_version_6() -> None:
    listener = Listener(SECRET, ["::1"], on="::1")
    with ThreadPoolExecutor(1) as pool:
        connecting = pool.submit(connect, listener.endpoint, SECRET, 3)
        one = listener.accept(5)
        connection = connecting.result()
    assert one is not None
    assert one[0] == 3
    assert connection is not None
    one[1].close()
    connection.close()
    listener.close()


def test_strangers_are_not_accepted() -> None:
    listener = Listener(SECRET, [HERE], on=HERE)
    accepted: list[object] = []
    listening = threading.Thread(target=lambda: accepted.append(listener.accept(1)))
    listening.start()
    assert connect(listener.endpoint, b"guessed", 1) is None
    listening.join()
    assert accepted == [None]
    listener.close()


def accepted_beside(strangers: list[socket.socket], listener: Listener) -> int | None:
    """The number that is accepted when one of us connects after `strangers`; hangs up on all."""
    with ThreadPoolExecutor(1) as pool:
        connecting = pool.submit(connect, listener.endpoint, SECRET, 7)
        one = listener.accept(TIMEOUT_S)
        connection = connecting.result()
    listener.close()
    for each in (*strangers, connection, one and one[1]):
        if each:
            each.close()
    return one and one[0]


def test_strangers_who_say_nothing_keep_nobody_waiting() -> None:
    listener = Listener(SECRET, [HERE], on=HERE, handshake_timeout_s=10 * TIMEOUT_S)
    assert accepted_beside([socket.create_connection((HERE, listener.endpoint.port)) for _ in range(12)], listener) == 7


def test_strangers_who_talk_nonsense_keep_nobody_waiting() -> None:
    listener = Listener(SECRET, [HERE], on=HERE)
    strangers = [socket.create_connection((HERE, listener.endpoint.port)) for _ in range(3)]
    strangers[0].sendall(b"GET / HTTP/1.1\r\n\r\n" * 1000)
    strangers[1].sendall(b"\x7f")
    strangers[2].close()
    assert accepted_beside(strangers, listener) == 7


def test_of_many_strangers_those_go_who_came_first() -> None:
    listener = Listener(SECRET, [HERE], on=HERE, max_pending=4)
    assert (
        accepted_beside([socket.create_connection((HERE, listener.endpoint.port)) for _ in range(100)], listener) == 7
    )


def test_who_takes_too_long_is_dropped() -> None:
    listener = Listener(SECRET, [HERE], on=HERE, handshake_timeout_s=0.1)
    with socket.create_connection((HERE, listener.endpoint.port)) as stranger:
        stranger.sendall(b"\x7f")
        assert listener.accept(0.5) is None
        assert len(stranger.recv(1000)) == 32
        with suppress(ConnectionResetError):
            assert stranger.recv(1) == b""
    listener.close()


def test_who_spoke_while_nobody_listened_is_accepted() -> None:
    listener = Listener(SECRET, [HERE], on=HERE, handshake_timeout_s=0.1)
    with ThreadPoolExecutor(2) as pool:
        attempts = [pool.submit(connect, listener.endpoint, SECRET, number) for number in range(2)]
        accepted: list[tuple[int, socket.socket] | None] = []
        while len(accepted) < 2:
            accepted.append(listener.accept(TIMEOUT_S))
            time.sleep(0.3)  # busy with the first
        connections = [attempt.result() for attempt in attempts]
    assert {one and one[0] for one in accepted} == {0, 1}
    for each in (*connections, *(one and one[1] for one in accepted)):
        assert each is not None
        each.close()
    listener.close()
