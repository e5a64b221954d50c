"""Data sets of Ray Data, to train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_sequence, instance_of
from dist_relu.data import Dataset
from dist_relu.errors import DataError

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
    What has to be computed for the rows is, on the Ray cluster that the data set belongs to; they come here block by
    block, into one array.
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
    rows = dataset.select_columns([*wanted, target]).materialize()
    num_rows = rows.count()
    if not num_rows:
        raise DataError("The data set is empty.")
    x: Array | None = None
    targets = []
    first = 0
    for block in rows.iter_batches(batch_size=None, batch_format="numpy"):
        part = _samples(block, wanted)
        if x is None:
            x = np.empty((num_rows, *part.shape[1:]), part.dtype)
        elif (part.shape[1:], part.dtype) != (x.shape[1:], x.dtype):
            raise DataError(
                f"Row {first:,} and those after it are {part.dtype} of shape {part.shape[1:]}, but those before are "
                f"{x.dtype} of shape {x.shape[1:]}; expected the same for all."
            )
        x[first : first + len(part)] = part
        targets.append(_column(block, target))
        first += len(part)
    assert x is not None
    y = np.concatenate(targets)
    return Dataset(x, y.astype(str) if y.dtype == object else y, classes=classes)


def _check(dataset: Any) -> None:
    try:
        import ray.data
    except ImportError as error:
        raise DataError(f"Ray Data is missing ({error}). Install it: pip install 'dist_relu[ray-data]'.") from None
    if not isinstance(dataset, ray.data.Dataset):
        raise TypeError(f"dataset is a {type(dataset).__name__}; expected a ray.data.Dataset.")


def _samples(block: Mapping[str, Array], names: Sequence[str]) -> Array:
    """The samples (n, ...) of a block."""
    columns = [_column(block, name) for name in names]
    for name, column in zip(names, columns, strict=True):
        if column.dtype.kind not in "fiub":
            kind = "text" if column.dtype == object else column.dtype
            raise DataError(f"Column {name!r} holds {kind}; expected numbers, or arrays of one shape.")
    if len(columns) == 1 and columns[0].ndim > 1:
        return columns[0]
    for name, column in zip(names, columns, strict=True):
        if column.ndim > 1:
            raise DataError(
                f"Column {name!r} holds arrays of shape {column.shape[1:]} beside other columns; name it alone: "
                f"features=[{name!r}]."
            )
    return np.stack(columns, axis=1)


def _column(block: Mapping[str, Array], name: str) -> Array:
    """A column (n, ...); lists of numbers in it, as tables have them, become arrays."""
    column = np.asarray(block[name])
    if column.dtype == object and len(column) and isinstance(column[0], np.ndarray | list):
        try:
            return np.stack([np.asarray(one) for one in column])
        except ValueError:
            raise DataError(f"Column {name!r} holds arrays of unlike shapes; expected one shape.") from None
    return column
