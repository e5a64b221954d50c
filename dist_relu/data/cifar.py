"""CIFAR-10 and CIFAR-100 in their binary version (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images").

A file has rows of the same length one after the other: a byte with the class, for CIFAR-100 one with the coarse class
before that, and 32 x 32 pixels, all of red, then of green, then of blue. https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.untrusted import read_file, reading
from dist_relu.data.dataset import Split
from dist_relu.data.idx import check_room
from dist_relu.data.parts import Part, joined, naming
from dist_relu.errors import DataError

_SIZE, _CHANNELS = 32, 3
_PIXELS = _CHANNELS * _SIZE * _SIZE
_MOST_NAMES_BYTES = 100_000


@final
@dataclass(frozen=True)
class Cifar:
    """One of the two: how its files are named, and how many bytes of labels stand before the pixels.

    train, test: patterns of names.  names: the file with the names of the classes.  folder: in its archive.
    """

    name: str
    folder: str
    train: str
    test: str
    names: str
    num_classes: int
    label_bytes: int


CIFAR10 = Cifar("cifar10", "cifar-10-batches-bin", "data_batch_*.bin", "test_batch.bin", "batches.meta.txt", 10, 1)
CIFAR100 = Cifar("cifar100", "cifar-100-binary", "train.bin", "test.bin", "fine_label_names.txt", 100, 2)


def find_cifar(folder: Path, *kinds: Cifar) -> tuple[Cifar, Path] | None:
    """Which of these (or of both) lies in a folder, or below it as its archive has it, and where; None for none."""
    for kind in kinds or (CIFAR10, CIFAR100):
        for place in (folder, folder / kind.folder):
            if any(place.glob(kind.train)) and (place / kind.test).is_file():
                return kind, place
    return None


def load_cifar(kind: Cifar, folder: Path) -> Split:
    """Images (N, 32, 32, 3) in [0, 1] and their classes, by name where the file with the names is there.

    Of CIFAR-100 the classes are the 100 fine ones.  Raises `DataError` for files that are none, or not whole.
    """
    classes = _read_names(folder / kind.names, kind.num_classes)
    train = [_read(path, kind) for path in sorted(folder.glob(kind.train))]
    with naming(folder):
        x, y = (np.concatenate(each) for each in zip(*train, strict=True))
        shape = _SIZE, _SIZE, _CHANNELS
        test = Part(*_read(folder / kind.test, kind), shape, classes)
        return joined({"train": Part(x, y, shape, classes), "test": test})


def _read(path: Path, kind: Cifar) -> tuple[Array, Array]:
    """Images (N, 32, 32, 3) uint8 and classes (N,) int64 in a file."""
    row_bytes = kind.label_bytes + _PIXELS
    with reading(path, DataError, f"a file of {kind.name}"):
        size_bytes = path.stat().st_size
        if not size_bytes or size_bytes % row_bytes:
            raise DataError(
                f"{path} has {size_bytes:,} bytes; expected rows of {row_bytes:,}: {kind.label_bytes} of labels and "
                f"{_PIXELS:,} of pixels. Is it the binary version of {kind.name}, and whole?"
            )
        check_room(path, 2 * size_bytes)
        rows = np.frombuffer(read_file(path, size_bytes), np.uint8).reshape(-1, row_bytes)
    labels = rows[:, kind.label_bytes - 1].astype(np.int64)
    if labels.max() >= kind.num_classes:
        where = int(np.argmax(labels))
        raise DataError(f"{path}: the class of row {where} is {labels[where]}; expected less than {kind.num_classes}.")
    planes = rows[:, kind.label_bytes :].reshape(-1, _CHANNELS, _SIZE, _SIZE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels


def _read_names(path: Path, num_classes: int) -> tuple[str, ...] | None:
    """The names of the classes, one a line; None where there is no such file."""
    if not path.is_file():
        return None
    with reading(path, DataError, "the names of classes"):
        names = tuple(read_file(path, _MOST_NAMES_BYTES).decode().split())
    if len(set(names)) != num_classes or len(names) != num_classes:
        raise DataError(f"{path} has {len(set(names))} different names of classes; expected {num_classes}.")
    return names
