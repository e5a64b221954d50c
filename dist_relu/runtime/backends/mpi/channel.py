"""Messages between workers as MPI messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from dist_relu.comm.channel import MAX_TAG, Callback, Channel
from dist_relu.core.arrays import Array
from dist_relu.runtime.backends.mpi.messages import GROUP_TAG, WorkerGroup

_NUM_TASKS = 1 << 12
"""Tasks that a tag can tell apart; with the tags of a task that makes 28 bits, which MPICH and Open MPI both allow."""


@final
class MpiChannel(Channel):
    """Sends arrays as MPI messages.

    comm: a communicator of nobody else's, whose ranks are those of the workers.

    tasks_before: how many tasks others have run on it, see `begin`; a channel outlives those who use it, because
    what is under way can't be called back.

    Messages are looked for rather than waited for. So one that comes early is left where it is until somebody wants
    it, and one that nobody wants any more can be taken in and thrown away, for else its sender would wait for ever.
    """

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self._comm = comm
        self.tasks_before = 0
        self._task = 0
        self._status = MPI.Status()
        self._requests: list[Any] = []
        self._callbacks: list[Callback] = []  # what follows each request
        self._wanted: dict[tuple[int, int], list[tuple[Array, Callback]]] = {}
        self._early: dict[tuple[int, int], list[_Message]] = {}
        """By rank and tag, both."""

    def begin(self, task: int) -> None:
        self._task = (self.tasks_before + task) % _NUM_TASKS
        self._callbacks = [_nothing] * len(self._callbacks)
        self._wanted.clear()
        early, self._early = self._early, {}
        for (rank, tag), messages in early.items():
            for message in messages:
                self._sort(message, rank, tag)

    def send(self, array: Array, rank: int, tag: int, on_done: Callback) -> None:
        self._follow(self._comm.Isend([array, array.nbytes, self._mpi.BYTE], rank, self._tag(tag)), on_done)

    def receive(self, array: Array, rank: int, tag: int, on_done: Callback) -> None:
        key = rank, self._tag(tag)
        early = self._early.get(key)
        if early:
            self._take(early.pop(0), array, on_done)
        else:
            self._wanted.setdefault(key, []).append((array, on_done))

    @property
    def is_busy(self) -> bool:
        return bool(self._requests)

    def progress(self) -> bool:
        moved = False
        status = self._status
        while (message := self._comm.Improbe(status=status)) is not None:
            moved = True
            self._sort(_Message(message, status.Get_count(self._mpi.BYTE)), status.source, status.tag)
        done = self._mpi.Request.Testsome(self._requests) if self._requests else None
        if done:
            moved = True
            callbacks = [self._callbacks[i] for i in done]
            for i in sorted(done, reverse=True):
                del self._requests[i], self._callbacks[i]
            for on_done in callbacks:
                on_done()
        return moved

    def _sort(self, message: _Message, rank: int, tag: int) -> None:
        """Receive a message, or leave it for later, or throw it away."""
        age = (self._task - tag // (MAX_TAG + 1)) % _NUM_TASKS
        wanted = self._wanted.get((rank, tag))
        if wanted:
            self._take(message, *wanted.pop(0))
        elif 0 < age < _NUM_TASKS // 2:
            self._take(message, np.empty(message.size_bytes, np.uint8), _nothing)
        else:
            self._early.setdefault((rank, tag), []).append(message)

    def _take(self, message: _Message, array: Array, on_done: Callback) -> None:
        assert message.size_bytes == array.nbytes, "the workers do not agree about what they exchange"
        self._follow(message.handle.Irecv([array, array.nbytes, self._mpi.BYTE]), on_done)

    def _follow(self, request: Any, on_done: Callback) -> None:
        self._requests.append(request)
        self._callbacks.append(on_done)

    def _tag(self, tag: int) -> int:
        return self._task * (MAX_TAG + 1) + tag


@final
class Channels:
    """Keeps the channels between ranks of the job, made once: there is a limit to the number of communicators."""

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self._made: dict[tuple[int, ...], MpiChannel] = {}

    def channel(self, group: WorkerGroup) -> MpiChannel | None:
        """Return the channel of the workers of a group, if they need one.  Collective over them."""
        if not group.has_channel:
            return None
        if group.ranks not in self._made:
            ranks = self._comm.Get_group().Incl(group.ranks)
            self._made[group.ranks] = MpiChannel(self._comm.Create_group(ranks, GROUP_TAG))
        channel = self._made[group.ranks]
        channel.tasks_before = group.tasks_before
        return channel


@dataclass(frozen=True)
class _Message:
    """A message that MPI has matched for us, and that is still to be received."""

    handle: Any
    size_bytes: int


def _nothing() -> None:
    pass
