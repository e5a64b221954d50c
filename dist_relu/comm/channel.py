"""Messages between the workers of several nodes, and who keeps them moving.

A backend brings its own `Channel`. Everything above it, the exchange of gradients and the barrier over all nodes, is
written once, for a `ProgressEngine`.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import final

from dist_relu.comm.backoff import Backoff
from dist_relu.comm.barrier import NodeBarrier
from dist_relu.comm.marks import EXCHANGE
from dist_relu.core.arrays import Array

MAX_TAG = (1 << 16) - 1

_NUM_OFFERS = 20
_LONGEST_PAUSE_S, _IDLE_PAUSE_S = 0.0005, 0.02
_CLOSE_TIMEOUT_S = 2.0

Callback = Callable[[], object]


class Channel(ABC):
    """Sends arrays from the memory of one worker to that of another.  Used by one thread at a time.

    Messages from one worker to another with the same tag arrive in their order. They belong to a task: what was sent in
    an earlier one and still arrives is thrown away, so that a task may be given up at any time.
    """

    @abstractmethod
    def begin(self, task: int) -> None:
        """Send and receive messages of task number `task` from now on; forget those of earlier ones."""

    @abstractmethod
    def send(self, array: Array, rank: int, tag: int, on_done: Callback) -> None:
        """Start to send `array`, contiguous, to worker `rank`; it must stay as it is until `on_done` is called."""

    @abstractmethod
    def receive(self, array: Array, rank: int, tag: int, on_done: Callback) -> None:
        """Let the next message of worker `rank` with this tag, of the same size, go into `array`, then `on_done`."""

    @property
    @abstractmethod
    def is_busy(self) -> bool:
        """Tell whether anything that is being sent or received is not done yet."""

    @abstractmethod
    def progress(self) -> bool:
        """Let messages move, and call the `on_done` of those that are done; returns whether anything moved.

        Does not wait. Whatever is sent and received moves only while this is called.
        """


@final
class ProgressEngine:
    """Keeps the messages of a worker moving: from the worker's thread while that waits, otherwise from its own.

    Both pause between two looks, longer and longer, so that they leave the processor to those who compute. Between
    tasks the progress engine goes on slowly: others may still wait to get rid of messages of a task that was given up.
    lock: held by whoever calls an `on_done`; the other thread takes it for what these change as well.
    """

    def __init__(self, channel: Channel, barrier: NodeBarrier) -> None:
        self._channel = channel
        self._barrier = barrier
        self.lock = threading.RLock()
        self._awake = threading.Event()
        self._closed = False
        self._task = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="dist_relu-progress", daemon=True)
        self._thread.start()

    def begin(self, task: int) -> None:
        """Start task number `task`."""
        self._task = task
        with self.lock:
            self._channel.begin(task)

    def send(self, array: Array, rank: int, tag: int, on_done: Callback) -> None:
        """See `Channel.send`."""
        with self.lock:
            if self._barrier.marks:
                self._barrier.marks.note_sent(rank, tag, array.nbytes)
            self._channel.send(array, rank, tag, on_done)

    def receive(self, array: Array, rank: int, tag: int, on_done: Callback) -> None:
        """See `Channel.receive`."""
        marks = self._barrier.marks

        def noted() -> None:
            if marks:
                marks.note_received(rank, tag, array.nbytes)
            on_done()

        with self.lock:
            self._channel.receive(array, rank, tag, noted if marks else on_done)

    def wake(self) -> None:
        """Let the other thread look after the messages often, until `wait_until` relieves it."""
        self._awake.set()

    def wait_until(self, condition: Callable[[], bool], *, num_offers: int = _NUM_OFFERS) -> None:
        """Keep messages moving until `condition` holds.  Raises TaskAborted when the task was given up.

        num_offers: so often it looks again at once before it pauses.
        """
        marks = self._barrier.marks
        if marks:
            marks.enter(EXCHANGE)
        self._awake.clear()
        backoff = Backoff(longest_s=_LONGEST_PAUSE_S, num_offers=num_offers)
        while not condition():
            self._barrier.check()
            if self._error is not None:
                raise self._error
            with self.lock:
                moved = self._channel.progress()
            if not moved and self._barrier.stall_detector:
                self._barrier.stall_detector.check_other_nodes()
            backoff.pause(retry=not moved)
        if marks:
            marks.resume()

    def settle(self) -> None:
        """Wait until all is sent and received; for those who go on in another task, which would forget it."""
        self.wait_until(lambda: not self._channel.is_busy)

    def close(self) -> None:
        """Stop, when what is left of a task that was given up is out of the way.  May be called twice."""
        if not self._closed:
            self.begin(self._task + 1)
        deadline = time.monotonic() + _CLOSE_TIMEOUT_S
        while self._channel.is_busy and time.monotonic() < deadline:
            time.sleep(_LONGEST_PAUSE_S)
        self._closed = True
        self._awake.set()
        self._thread.join()

    def _work(self) -> None:
        backoff = Backoff(longest_s=_LONGEST_PAUSE_S)
        moved = False
        while not self._closed:
            if self._awake.is_set():
                backoff.pause(retry=not moved)
            else:
                self._awake.wait(_IDLE_PAUSE_S)
            try:
                with self.lock:
                    moved = self._channel.progress()
            except BaseException as error:  # for `wait_until` to raise
                self._error = error
                return
