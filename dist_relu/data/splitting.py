"""Data sets cut at random into parts that share no sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_bool, check_float, check_is, check_seed, check_sequence, shown
from dist_relu.data.dataset import Dataset, Split
from dist_relu.errors import DataError
from dist_relu.partition import Purpose, generator

_ROUNDING = 1e-9


def split(
    data: Dataset, fractions: float | Sequence[float], seed: int = 0, *, stratify: bool = False
) -> tuple[Dataset, ...]:
    """Cut a data set into parts, each sample into exactly one of them: the same ones on any machine.

    fractions: of the samples, one for each part, such as (0.8, 0.1, 0.1); a number such as 0.1 means (0.9, 0.1).
    stratify: let each class have its share of every part, as far as whole samples can.
    Samples keep their order. Raises `DataError` for a part without samples, and for `stratify` without classes.
    """
    check_is("data", data, Dataset)
    sizes = _sizes(fractions, len(data))
    order = generator(check_seed(seed), Purpose.DATA_SPLIT, 1).permutation(len(data))
    if check_bool("stratify", stratify):
        if not data.has_classes:
            raise DataError(f"stratify=True: there are no classes, the targets are {data.y.dtype}.")
        order = order[np.argsort(data.y[order], kind="stable")]
    part_of = np.empty(len(data), np.int64)
    part_of[order] = _dealt(sizes)
    chosen = (part_of == part for part in range(len(sizes)))
    return tuple(data.of_rows(these) for these in chosen)


def held_back(data: Split, share: float) -> Split:
    """Hold back this share of the samples to train on, to validate with; of each class, where there are classes."""
    check_float("validation", share, above=0, below=1)
    try:
        train, validation = split(data.train, share, stratify=data.train.has_classes)
    except DataError as error:
        raise DataError(f"validation={share}: {error}") from None
    return replace(data, train=train, validation=validation)


def _sizes(fractions: float | Sequence[float], num_samples: int) -> list[int]:
    """How many samples each part has."""
    if isinstance(fractions, Sequence | np.ndarray) and not isinstance(fractions, str) and np.ndim(fractions):
        shares = check_sequence("fractions", fractions, lambda at, value: check_float(at, value, above=0), "numbers")
        if len(shares) < 2 or abs(sum(shares) - 1) > _ROUNDING:
            raise ValueError(f"{shown('fractions', fractions)}: expected two or more that add up to 1.")
    else:
        share = check_float("fractions", fractions, above=0, below=1)
        shares = 1 - share, share
    ends = np.floor(np.cumsum(shares) * num_samples + 0.5).astype(int)
    ends[-1] = num_samples
    sizes: list[int] = np.diff(ends, prepend=0).tolist()
    if min(sizes) == 0:
        raise DataError(
            f"{shown('fractions', fractions)} of {num_samples:,} samples leave part {sizes.index(0)} without any."
        )
    return sizes


def _dealt(sizes: Sequence[int]) -> Array:
    """Deal parts of these sizes out so evenly that any samples in a row have about their share of every part.

    Returns the part of each, (samples,).
    """
    due = np.concatenate([(2 * np.arange(size) + 1) / (2 * size) for size in sizes])
    return np.repeat(np.arange(len(sizes)), sizes)[np.argsort(due, kind="stable")]
