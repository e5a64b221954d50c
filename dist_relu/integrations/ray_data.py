"""Data sets of Ray Data, to train on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_sequence, instance_of
from dist_relu.data import Dataset, Rows
from dist_relu.errors import DataError
from dist_relu.integrations.ray_blocks import RayBlocks

if TYPE_CHECKING:
    import ray.data

__all__ = ["dataset_from_ray"]


def dataset_from_ray(
    dataset: ray.data.Dataset,
    target: str = "label",
    features: Sequence[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
) -> Dataset:
    """The rows of a `ray.data.Dataset` in their order, which its blocks don't change: the same rows, the same bits.

    target: the column of targets: numbers, or text, which becomes classes.
    features: the columns of samples, in this order; by default all others, in theirs. A single one may hold arrays of
    one shape, such as images; several hold a number in each row.  classes: see `Dataset`.
    What has to be computed for the rows is, on the Ray cluster that the data set belongs to, and the samples stay in
    its object store, as arrays of theirs alone; only targets come here. Workers of the backend ray fetch blocks when
    they need their rows, each node once; for workers of other backends they are read into memory here.
    Raises DataError for columns that are missing, or not of numbers.
    """
    _check(dataset)
    names = list(dataset.schema().names)
    columns = check_sequence("features", features, instance_of(str), "columns") if features is not None else None
    wanted = [name for name in names if name != target] if columns is None else list(columns)
    if missing := [name for name in [target, *wanted] if name not in names]:
        raise DataError(f"The data set has no column {missing[0]!r}; it has {', '.join(map(repr, names))}.")
    if not wanted:
        raise DataError(f"The data set has no column beside {target!r}; expected samples, too.")
    dataset.context.execution_options.preserve_order = True
    bundles = dataset.iter_internal_ref_bundles()
    described, references = _parted([block for bundle in bundles for block in bundle.block_refs], wanted, target)
    if not described:
        raise DataError("The data set is empty.")
    first = described[0]
    for number, block in enumerate(described):
        if (block.shape, block.dtype) != (first.shape, first.dtype):
            row = sum(len(each.y) for each in described[:number])
            raise DataError(
                f"Row {row:,} and those after it are {block.dtype} of shape {block.shape}, but those before are "
                f"{first.dtype} of shape {first.shape}; expected the same for all."
            )
    y = np.concatenate([block.y for block in described])
    rows = Rows(RayBlocks(references, [len(block.y) for block in described], first.shape, first.dtype))
    return Dataset(rows, y.astype(str) if y.dtype == object else y, classes=classes)


def _check(dataset: Any) -> None:
    try:
        import ray.data
    except ImportError as error:
        raise DataError(f"Ray Data is missing ({error}). Install it: pip install 'dist_relu[ray-data]'.") from None
    if not isinstance(dataset, ray.data.Dataset):
        raise TypeError(f"dataset is a {type(dataset).__name__}; expected a ray.data.Dataset.")


class _Block(NamedTuple):
    """What the coordinator knows of a block: the shape and the type of each sample, and the targets (n, ...)."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    y: Array


def _parted(
    blocks: Sequence[ray.ObjectRef[Any]], wanted: Sequence[str], target: str
) -> tuple[list[_Block], list[ray.ObjectRef[Array]]]:
    """Part blocks where they lie into targets, which come here, and samples, which stay; empty ones are left out.

    No task waits for a CPU: workers of a training may have them all.
    """
    import ray

    part: Any = ray.remote(_part).options(num_returns=2, num_cpus=0)
    parts = [part.remote(block, list(wanted), target) for block in blocks]
    try:
        described: list[_Block | None] = ray.get([one for one, _ in parts])
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, DataError) else error from None
    found = [(block, samples) for block, (_, samples) in zip(described, parts, strict=True) if block is not None]
    return [block for block, _ in found], [samples for _, samples in found]


def _part(block: Any, wanted: Sequence[str], target: str) -> tuple[_Block | None, Array]:
    """Part a block into what is known of it, and its samples (n, ...); None for an empty one."""
    from ray.data.block import BlockAccessor

    accessor = BlockAccessor.for_block(block)
    if not accessor.num_rows():
        return None, np.empty(0)
    columns = accessor.to_numpy([*wanted, target])
    x = np.ascontiguousarray(_samples({name: _column(name, columns[name]) for name in wanted}))
    return _Block(x.shape[1:], x.dtype, _column(target, columns[target])), x


def _samples(columns: dict[str, Array]) -> Array:
    """The samples (n, ...) of columns (n, ...)."""
    for name, column in columns.items():
        if column.dtype.kind not in "fiub":
            kind = "text" if column.dtype == object else column.dtype
            raise DataError(f"Column {name!r} holds {kind}; expected numbers, or arrays of one shape.")
    if len(columns) == 1:
        (column,) = columns.values()
        return column if column.ndim > 1 else column.reshape(-1, 1)
    for name, column in columns.items():
        if column.ndim > 1:
            raise DataError(
                f"Column {name!r} holds arrays of shape {column.shape[1:]} beside other columns; name it alone: "
                f"features=[{name!r}]."
            )
    return np.stack([*columns.values()], axis=1)


def _column(name: str, column: Array) -> Array:
    """A column (n, ...); lists of numbers in it, as tables have them, become arrays."""
    if column.dtype == object and len(column) and isinstance(column[0], np.ndarray | list):
        try:
            return np.stack([np.asarray(one) for one in column])
        except ValueError:
            raise DataError(f"Column {name!r} holds arrays of unlike shapes; expected one shape.") from None
    return column
