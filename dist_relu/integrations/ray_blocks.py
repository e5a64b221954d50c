"""Blocks of rows in Ray's object store, which whoever is on the cluster reads.

A node that wants a row of a block has Ray bring the block, once, into the memory that its processes share, and maps it
there: nothing is copied, and an epoch takes its rows from anywhere in it. So every node with workers comes to hold the
whole data set. Where that would take more than half of the node's object store, each process keeps what it has fetched
in a file without a name instead, as is done for tables in files (`dist_relu/data/tables.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import prod
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.data.rows import Storage
from dist_relu.data.unnamed_files import unnamed_file
from dist_relu.errors import DataError

if TYPE_CHECKING:
    import ray

_SHARE = 0.5
"""So much of a node's object store may be held by the blocks of a data set."""


@final
class RayBlocks(Storage):
    """Arrays (n, ...) in Ray's object store, one after the other: (N, ...).

    They are there as long as this object: what is pickled of it refers to them, and counts as nothing that holds them.
    """

    backend: ClassVar[str | None] = "ray"
    _pickled: bytes

    def __init__(
        self, references: Sequence[ray.ObjectRef[Array]], sizes: Sequence[int], shape: tuple[int, ...], dtype: Any
    ) -> None:
        """references: of arrays, none of them empty.  sizes: how many rows each has.  shape, dtype: of a row."""
        self._references = references
        self.shape, self.dtype = (sum(sizes), *shape), np.dtype(dtype)
        self._starts = np.cumsum([0, *sizes])

    def memory(self) -> Array | None:
        return self._block(0) if len(self._blocks) == 1 else None

    def bring(self, numbers: Array) -> bool:
        return True  # in shared memory, or not needed before it is

    def read(self, numbers: Array) -> Array:
        places = np.searchsorted(self._starts, numbers, "right") - 1
        wanted = np.unique(places)
        self._fetch(wanted)
        rows = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        for place in wanted.tolist():
            here = np.flatnonzero(places == place)
            rows[here] = self._block(place)[numbers[here] - self._starts[place]]
        return rows

    def _block(self, place: int) -> Array:
        self._fetch(np.array([place]))
        block = self._blocks[place]
        assert block is not None
        return block

    def _fetch(self, wanted: Array) -> None:
        """Have these blocks here.  Raises `DataError` where Ray has lost them."""
        import ray

        with self._lock:
            missing = [place for place in wanted.tolist() if self._blocks[place] is None]
            if not missing:
                return
            try:
                if self._kept is None:
                    for place, block in zip(
                        missing, ray.get([self._references[place] for place in missing]), strict=True
                    ):
                        self._blocks[place] = block
                    return
                for place in missing:
                    block = self._kept[self._starts[place] : self._starts[place + 1]]
                    block[...] = ray.get(self._references[place])
                    self._blocks[place] = block
            except ray.exceptions.RayError as error:
                told = " ".join(str(error).split())
                raise DataError(f"Blocks of the data set can't be had from Ray any more. Ray says: {told}") from error

    @cached_property
    def _blocks(self) -> list[Array | None]:
        """The blocks that are here."""
        return [None] * (len(self._starts) - 1)

    @cached_property
    def _kept(self) -> Array | None:
        """Memory for all rows, where the object store of this node has no room to hold them."""
        import ray

        here = ray.get_runtime_context().get_node_id()
        room = sum(node["Resources"].get("object_store_memory", 0) for node in ray.nodes() if node["NodeID"] == here)
        has_room = prod(self.shape) * self.dtype.itemsize <= _SHARE * room
        return None if has_room else unnamed_file(self.shape, self.dtype, "a data set of Ray")

    @cached_property
    def _lock(self) -> Any:
        return Lock()

    @cached_property
    def _references(self) -> Sequence[ray.ObjectRef[Array]]:
        from ray import cloudpickle

        references: Sequence[ray.ObjectRef[Array]] = cloudpickle.loads(self._pickled)
        return references

    def __getstate__(self) -> dict[str, Any]:
        kept = ("shape", "dtype", "_starts")
        return {"_pickled": _pickled(self._references), **{name: getattr(self, name) for name in kept}}


def _pickled(references: Sequence[ray.ObjectRef[Array]]) -> bytes:
    """Pickle references for other processes of this job, which can use them as long as they are held here."""
    import ray

    pickled: bytes = ray.cloudpickle.dumps(references)
    for reference in references:  # Ray has counted them once more, for good
        ray._private.worker.global_worker.core_worker.remove_object_ref_reference(reference)
    return pickled
