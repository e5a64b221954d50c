"""The sum over nodes for actors of your own: a backend of `ray.util.collective` for NumPy arrays.

    from dist_relu.integrations import ray_collective
    ray_collective.register()                       # in the driver and in every actor
    collective.init_collective_group(4, rank, backend="dist_relu")
    collective.allreduce(gradient)

Arrays of actors on one node are combined in shared memory; between nodes each part of them crosses the wire once each
way. What comes out depends neither on who was first nor on where the actors run.
"""

from __future__ import annotations

import json
import secrets
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar, final

import numpy as np
import ray
from ray.experimental import internal_kv
from ray.util.collective.collective_group.base_collective_group import BaseGroup
from ray.util.collective.types import ReduceOp

from dist_relu.comm.barrier import control_shape
from dist_relu.comm.group import Group, Operation
from dist_relu.comm.handshake import Endpoint, Listener, connect
from dist_relu.comm.shared_memory import Handle, SharedArray, attach
from dist_relu.comm.tcp import connect_nodes
from dist_relu.core.arrays import Array
from dist_relu.core.untrusted import made, parse_json, read_exactly
from dist_relu.errors import BackendError
from dist_relu.runtime.process_info import ProcessInfo, by_node, nodes_of

__all__ = ["register"]

NAME = "dist_relu"

_OPERATIONS: dict[Any, Operation] = {
    ReduceOp.SUM: np.add,
    ReduceOp.PRODUCT: np.multiply,
    ReduceOp.MIN: np.minimum,
    ReduceOp.MAX: np.maximum,
}
_START_TIMEOUT_S = 60.0
_POLL_S = 0.02
_LENGTH = struct.Struct("!Q")
_MOST_BYTES_PER_RANK = 1 << 16

T = TypeVar("T")


def register() -> None:
    """Make the backend "dist_relu" known to `ray.util.collective`, in this process.  May be called twice.

    Raises BackendError when this Ray takes no backends of others.
    """
    try:
        from ray.util.collective.backend_registry import _global_registry, register_collective_backend
    except ImportError:
        raise BackendError(
            f"ray.util.collective of Ray {ray.__version__} takes no backends of others; that of Ray 2.60 does."
        ) from None
    if not _global_registry.is_registered(NAME):
        register_collective_backend(NAME, DistReluGroup)


@final
class DistReluGroup(BaseGroup):
    """A group of actors, as `ray.util.collective` calls it; see there.

    It takes NumPy arrays of numbers, and changes them in place. Results have the same bits wherever the actors run.
    Most is to be won where ranks of a node follow one another.
    """

    def __init__(self, world_size: int, rank: int, group_name: str) -> None:
        super().__init__(world_size, rank, group_name)
        roster = _bootstrap(world_size, rank, group_name)
        order = by_node([entry.process for entry in roster.entries])
        entries = [roster.entries[i] for i in order]
        nodes = nodes_of([entry.process for entry in entries])
        self._numbers = [order.index(i) for i in range(world_size)]  # from Ray's ranks to ours, node by node
        number = self._numbers[rank]
        alone = [range(i, i + 1) for i in range(world_size)]
        channel = connect_nodes(number, alone, roster.listener, [entry.endpoint for entry in entries], roster.secret)
        (ranks,) = (ranks for ranks in nodes if number in ranks)
        first = entries[ranks.start]
        shape, dtype = control_shape(world_size), np.dtype(np.int64)
        control = attach(Handle(first.process.pid, first.descriptor, first.inode, shape, dtype))
        self._group = Group(number, nodes, order, [entries[i].process.pid for i in ranks], control, channel)
        self._group.barrier()  # until all have mapped what they share

    def destroy_group(self) -> None:
        self._group.close()

    @classmethod
    def backend(cls) -> str:
        return NAME.upper()

    @classmethod
    def check_backend_availability(cls) -> bool:
        return True

    def allreduce(self, tensor: Sequence[Any], allreduce_options: Any) -> None:
        self._group.all_reduce(_one(tensor), _OPERATIONS[allreduce_options.reduceOp])

    def barrier(self, barrier_options: Any = None) -> None:
        self._group.barrier()

    def reduce(self, tensor: Sequence[Any], reduce_options: Any) -> None:
        root = self._numbers[reduce_options.root_rank]
        self._group.all_reduce(_one(tensor), _OPERATIONS[reduce_options.reduceOp], root=root)

    def allgather(self, tensor_list: Sequence[Any], tensor: Sequence[Any], allgather_options: Any = None) -> None:
        (arrays,), array = tensor_list, _one(tensor)
        _check_alike(array, arrays)
        self._group.all_gather(self._by_number(arrays), array)

    def broadcast(self, tensor: Sequence[Any], broadcast_options: Any) -> None:
        self._group.broadcast(_one(tensor), self._numbers[broadcast_options.root_rank])

    def reducescatter(self, tensor: Sequence[Any], tensor_list: Sequence[Any], reducescatter_options: Any) -> None:
        array, (parts,) = _one(tensor), tensor_list
        _check_alike(array, parts)
        self._group.reduce_scatter(array, self._by_number(parts), _OPERATIONS[reducescatter_options.reduceOp])

    def send(self, tensor: Sequence[Any], send_options: Any) -> None:
        self._group.send(_one(tensor), self._numbers[send_options.dst_rank])

    def recv(self, tensor: Sequence[Any], recv_options: Any) -> None:
        self._group.receive(_one(tensor), self._numbers[recv_options.src_rank])

    def _by_number(self, arrays: Sequence[Array]) -> list[Array]:
        return [arrays[self._numbers.index(i)] for i in range(len(arrays))]


def _one(tensors: Sequence[Any]) -> Array:
    """Return the only array among `tensors`."""
    if len(tensors) != 1:
        raise ValueError(f"expected one array for each actor, got {len(tensors)}: this backend has no GPUs.")
    array = tensors[0]
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufc":
        what = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"expected a NumPy array of numbers, got {what}. For PyTorch tensors pass tensor.numpy().")
    return array


def _check_alike(array: Array, others: Sequence[Any]) -> None:
    for i, other in enumerate(others):
        if _one([other]).shape != array.shape or other.dtype != array.dtype:
            raise ValueError(
                f"array {i} of the list is {other.dtype} {other.shape}; expected {array.dtype} {array.shape}."
            )


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """Describes one rank to the others, as JSON.

    addresses, port: of its listener.  descriptor, inode: of control memory for its node, if it is the first there.
    """

    process: ProcessInfo
    addresses: list[str]
    port: int
    descriptor: int
    inode: int

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.addresses, self.port)


@dataclass(frozen=True, kw_only=True)
class _Invitation:
    """Says how to get to rank 0, as JSON in Ray's key-value store.  secret: in hexadecimal digits."""

    addresses: list[str]
    port: int
    secret: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class _Roster:
    """Lists all ranks.  listener: of this one.  secret: known to all.  control: this rank's, to be kept."""

    entries: Sequence[_Entry]
    listener: Listener
    secret: bytes = field(repr=False)
    control: SharedArray


def _bootstrap(size: int, rank: int, group: str) -> _Roster:
    """Get to know all ranks through rank 0, whose endpoint stands in Ray's key-value store.

    Raises BackendError that names who is missing.
    """
    key = f"dist_relu group {group} of job {ray.get_runtime_context().get_job_id()}"
    deadline = time.monotonic() + _START_TIMEOUT_S
    address = ray.util.get_node_ip_address()
    control = SharedArray(control_shape(size), "int64")

    def own(listener: Listener) -> _Entry:
        return _Entry(
            process=ProcessInfo.in_cluster(),
            addresses=[address],
            port=listener.endpoint.port,
            descriptor=control.handle.descriptor,
            inode=control.handle.inode,
        )

    if rank:
        connection, secret = _connect_to_first(key, rank, group, deadline)
        listener = Listener(secret, [address], on=address, backlog=size)
        with connection:
            _write(connection, asdict(own(listener)))
            entries_of_all = _read(list[_Entry], connection, size * _MOST_BYTES_PER_RANK)
            return _Roster(entries=entries_of_all, listener=listener, secret=secret, control=control)
    secret = secrets.token_bytes(32)
    listener = Listener(secret, [address], on=address, backlog=size)
    bootstrap = Listener(secret, [address], on=address, backlog=size)
    entries = {0: own(listener)}
    connections = []
    try:
        invitation = _Invitation(addresses=[address], port=bootstrap.endpoint.port, secret=secret.hex())
        internal_kv._internal_kv_put(key, json.dumps(asdict(invitation)).encode())
        while len(entries) < size:
            if time.monotonic() > deadline:
                missing = [rank for rank in range(size) if rank not in entries]
                raise BackendError(f"Ranks {missing} did not join group {group!r} within {_START_TIMEOUT_S:.0f} s.")
            if accepted := bootstrap.accept(deadline - time.monotonic()):
                other, connection = accepted
                connections.append(connection)
                if other in range(size) and other not in entries:
                    entries[other] = _read(_Entry, connection, _MOST_BYTES_PER_RANK)
        in_order = [entries[i] for i in range(size)]
        for connection in connections:
            _write(connection, [asdict(entry) for entry in in_order])
    finally:
        internal_kv._internal_kv_del(key)
        bootstrap.close()
        for connection in connections:
            connection.close()
    return _Roster(entries=in_order, listener=listener, secret=secret, control=control)


def _connect_to_first(key: str, rank: int, group: str, deadline: float) -> tuple[socket.socket, bytes]:
    """Connect to rank 0, also when an endpoint of an earlier group that is gone still stands in the store."""
    stale = None
    while time.monotonic() < deadline:
        entry = internal_kv._internal_kv_get(key)
        if entry not in (None, stale):
            invitation = made(_Invitation, parse_json(entry))
            secret = bytes.fromhex(invitation.secret)
            if connection := connect(Endpoint(invitation.addresses, invitation.port), secret, rank):
                return connection, secret
            stale = entry
        time.sleep(_POLL_S)
    raise BackendError(f"Rank 0 of group {group!r} could not be reached within {_START_TIMEOUT_S:.0f} s.")


def _write(connection: socket.socket, message: Any) -> None:
    data = json.dumps(message).encode()
    connection.settimeout(_START_TIMEOUT_S)
    connection.sendall(_LENGTH.pack(len(data)) + data)


def _read(kind: type[T], connection: socket.socket, most_bytes: int) -> T:
    """Read what `_write` wrote.  Raises BackendError for anything else."""
    connection.settimeout(_START_TIMEOUT_S)
    with connection.makefile("rb") as file:
        try:
            (length,) = _LENGTH.unpack(read_exactly(file, _LENGTH.size))
            if length > most_bytes:
                raise ValueError(f"it has {length:,} bytes, more than {most_bytes:,}")
            return made(kind, parse_json(read_exactly(file, length)))
        except (ValueError, EOFError, OSError, RecursionError) as error:
            raise BackendError(f"A rank of the group sent what is no description of itself: {error}.") from error
