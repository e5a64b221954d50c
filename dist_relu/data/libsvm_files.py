"""Sparse rows as LIBSVM writes them, a line each: `label index:value index:value`; scikit-learn reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.untrusted import reading
from dist_relu.data.dataset import Split
from dist_relu.data.idx import check_room
from dist_relu.data.parts import Part, PartName, joined, naming
from dist_relu.errors import DataError

SUFFIXES = {".libsvm", ".svm", ".svmlight"}


def load_libsvm(path: Path) -> Split:
    """The rows of a file, dense; those of FILE.t beside it, where there is one, are to test with.

    Labels that are whole numbers are classes. Unless they count from 0 they keep their numbers as names: -1 and 1 are
    the classes "-1" and "1".  Raises `DataError`.
    """
    test = path.with_name(path.name + ".t")
    paths: dict[PartName, Path] = {"train": path, **({"test": test} if test.is_file() else {})}
    with reading(path, DataError, "LIBSVM's text"):
        read = _read(list(paths.values()))
    labels, classes = _classes(np.concatenate([labels for _, labels in read]))
    parts, first = {}, 0
    for part, (x, _) in zip(paths, read, strict=True):
        parts[part] = Part(x, labels[first : first + len(x)], None, classes)
        first += len(x)
    with naming(path):
        return joined(parts)


def _classes(labels: Array) -> tuple[Array, tuple[str, ...] | None]:
    """Whole numbers as classes, and their names unless they count from 0; others as they are."""
    found, numbers = np.unique(labels, return_inverse=True)
    if (np.floor(found) != found).any():
        return labels, None
    if found[0] == 0 and found[-1] < 2 * len(found):
        return labels.astype(np.int64), None
    return numbers.astype(np.int64), tuple(f"{label:.0f}" for label in found)


def _read(paths: list[Path]) -> list[tuple[Array, Array]]:
    """Dense rows and labels of each file, all with as many features."""
    try:
        from sklearn.datasets import load_svmlight_files
    except ImportError:
        raise DataError("LIBSVM's text is read by scikit-learn: pip install 'dist_relu[data]'.") from None
    found: list[Any] = load_svmlight_files(list(map(str, paths)))
    num_rows, num_features = sum(x.shape[0] for x in found[::2]), found[0].shape[1]
    if not num_rows:
        raise DataError(f"{paths[0]} has no rows.")
    check_room(paths[0], num_rows * num_features * 8)
    return [(x.toarray(), labels) for x, labels in zip(found[::2], found[1::2], strict=True)]
