"""Arrays of which every node has a copy, in memory that its workers share.

The coordinator makes them. On its own node it is the coordinator's memory that workers map; on every other node the
first worker holds a copy until the coordinator releases it. Of a copy only those rows travel, and take memory, that
are wanted there.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from dist_relu.comm.shared_memory import Handle, Handles, LentArray, SharedArray
from dist_relu.core.arrays import Array
from dist_relu.runtime.world import World

_MESSAGE_BYTES = 32 << 20

Ask = Callable[[Sequence[int], Callable[[World, Any], Any], Any], list[Any]]
"""(ranks, function, request): run function(world, request) on these workers; returns what they return."""


@final
class ReplicatedArrays:
    """Makes the arrays of one coordinator.

    nodes: the ranks of each.  coordinator_node: the number of the coordinator's own; None when no worker runs there.
    backend: the name of the one that the workers are of.
    """

    def __init__(self, nodes: Sequence[range], coordinator_node: int | None, ask: Ask, backend: str) -> None:
        self.nodes = nodes
        self.backend = backend
        self.num_nodes = len(nodes)
        self.coordinator_node = coordinator_node
        self._ask = ask
        self._keys = itertools.count()
        self._released: list[int] = []
        self._made: weakref.WeakSet[ReplicatedArray] = weakref.WeakSet()

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> ReplicatedArray:
        """Make an array of zeros on every node."""
        return self._everywhere(SharedArray(shape, dtype))

    def copy_of(self, source: Array, dtype: npt.DTypeLike | None = None) -> ReplicatedArray:
        """Copy `source`, converted to `dtype`; the other nodes have zeros until its rows are broadcast."""
        return self._everywhere(SharedArray.copy_of(source, dtype))

    def of(self, source: Array, dtype: np.dtype[Any]) -> ReplicatedArray:
        """Take `source` itself, where the only worker is in this process; otherwise a copy.  It may not change then."""
        is_as_kernels_want_it = source.dtype == dtype and source.flags.carray
        if self.backend == "serial" and is_as_kernels_want_it:
            lent = LentArray(source)
            return ReplicatedArray(self, next(self._keys), lent, [lent.handle])
        return self.copy_of(source, dtype)

    @contextmanager
    def for_a_call(self) -> Iterator[ReplicatedArrays]:
        """Make arrays that end with a block of code: frees them on the other nodes behind it.

        When the block fails, they are freed when the next array is made: workers may still be stuck.
        """
        temporary = ReplicatedArrays(self.nodes, self.coordinator_node, self._ask, self.backend)
        temporary._keys, temporary._released = self._keys, self._released
        yield temporary
        for replica in list(temporary._made):
            replica.release()
        if self._released:
            with self._released_keys() as released:
                self.ask(self.others, _free, released)

    def rows_by_node(self, rows: Sequence[range]) -> dict[int, range]:
        """Turn rows by rank, in their order, into rows by node."""
        return {number: range(rows[ranks[0]].start, rows[ranks[-1]].stop) for number, ranks in enumerate(self.nodes)}

    @property
    def others(self) -> list[int]:
        """Return the numbers of all nodes but the coordinator's own."""
        return [number for number in range(self.num_nodes) if number != self.coordinator_node]

    def ask(self, nodes: Sequence[int], function: Callable[[World, Any], Any], request: Any) -> list[Any]:
        """Run a function on the first worker of each of these nodes."""
        return self._ask([self.nodes[number].start for number in nodes], function, request) if nodes else []

    def _everywhere(self, shared: SharedArray) -> ReplicatedArray:
        key = next(self._keys)
        with self._released_keys() as released:
            request = _AllocateRequest(key=key, shape=shared.handle.shape, dtype=shared.handle.dtype, released=released)
            handles = dict(zip(self.others, self.ask(self.others, _allocate, request), strict=True))
        replica = ReplicatedArray(self, key, shared, [handles.get(i, shared.handle) for i in range(self.num_nodes)])
        if handles:
            replica.release = weakref.finalize(replica, self._released.append, key)
            self._made.add(replica)
        return replica

    @contextmanager
    def _released_keys(self) -> Iterator[list[int]]:
        """Give the keys of what the other nodes are to free; they come again when the block fails."""
        released = self._released[:]
        yield released
        del self._released[: len(released)]


@final
class ReplicatedArray:
    """An array on every node.

    array: the coordinator's own.  handles: for `Node.attach`.  release: lets the other nodes free their copies when
    the next array is made.
    """

    release: Callable[[], object]

    def __init__(self, replicas: ReplicatedArrays, key: int, shared: SharedArray | LentArray, handles: Handles) -> None:
        self.array = shared.array
        self.handles = handles
        self._shared = shared  # workers map it through this
        self._replicas = replicas
        self._key = key
        self._there = dict.fromkeys(replicas.others, range(0))

    def broadcast(self, rows: Mapping[int, range] | None = None) -> None:
        """Bring rows to the nodes that want them, by default all to all; what a node has already does not travel."""
        wanted = dict.fromkeys(self._there, range(len(self.array))) if rows is None else rows
        nodes_of: dict[range, list[int]] = {}
        for node, there in self._there.items():
            want = wanted[node]
            have = there or range(want.start, want.start)
            for missing in (range(want.start, have.start), range(have.stop, want.stop)):
                if missing:
                    nodes_of.setdefault(missing, []).append(node)
        for missing, nodes in nodes_of.items():
            for part in self._messages(missing):
                request = _RowsRequest(key=self._key, rows=part, values=self.array[part.start : part.stop])
                self._replicas.ask(nodes, _write, request)
        for node, there in self._there.items():
            have = there or wanted[node]
            self._there[node] = range(min(have.start, wanted[node].start), max(have.stop, wanted[node].stop))

    def put(self, index: tuple[int | slice, ...], values: Array) -> None:
        """Write array[index] here and on all other nodes, whatever they have there; nothing else travels."""
        self.array[index] = values
        self._replicas.ask([*self._there], _put, _PutRequest(key=self._key, index=index, values=self.array[index]))

    def gather(self, rows: Mapping[int, range]) -> Array:
        """Fetch the rows that the workers of each node have written; returns the whole array."""
        for node in self._there:
            for part in self._messages(rows.get(node, range(0))):
                (values,) = self._replicas.ask([node], _read, _RowsRequest(key=self._key, rows=part))
                self.array[part.start : part.stop] = values
        return self.array

    def _messages(self, rows: range) -> Iterator[range]:
        """Cut rows into messages of a size that any backend carries."""
        num_rows = max(_MESSAGE_BYTES // max(self.array[:1].nbytes, 1), 1)
        for first in range(rows.start, rows.stop, num_rows):
            yield range(first, min(first + num_rows, rows.stop))


@dataclass(frozen=True, kw_only=True)
class _AllocateRequest:
    """A node is to hold an array.  released: the keys of arrays that it is to free first."""

    key: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    released: Sequence[int]


def _allocate(world: World, request: _AllocateRequest) -> Handle:
    _free(world, request.released)
    shared = SharedArray(request.shape, request.dtype)
    world.node.held[request.key] = shared
    return shared.handle


def _free(world: World, released: Sequence[int]) -> None:
    for key in released:
        world.node.held.pop(key, None)


@dataclass(frozen=True, kw_only=True)
class _RowsRequest:
    """Rows of an array that a node holds.  values: (rows, ...), to be written there; None to read."""

    key: int
    rows: range
    values: Array | None = None


def _write(world: World, request: _RowsRequest) -> None:
    world.node.held[request.key].array[request.rows.start : request.rows.stop] = request.values


def _read(world: World, request: _RowsRequest) -> Array:
    return world.node.held[request.key].array[request.rows.start : request.rows.stop]


@dataclass(frozen=True, kw_only=True)
class _PutRequest:
    """A part of an array that a node holds is to be written there."""

    key: int
    index: tuple[int | slice, ...]
    values: Array


def _put(world: World, request: _PutRequest) -> None:
    world.node.held[request.key].array[request.index] = request.values
