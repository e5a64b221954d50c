"""What readers of data sets share: parts by their names, classes of all parts, bytes as shades, errors with a file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.machine import available_memory_bytes
from dist_relu.data.dataset import Dataset, Split
from dist_relu.data.labels import are_text, listed
from dist_relu.data.rows import Rows
from dist_relu.errors import DataError, DataWarning
from dist_relu.partition import Purpose, generator

SHADE = 1 / 255
"""What a byte of an image is multiplied by."""

_TEST_SHARE = 0.2
_PART_OF_MEMORY = 4
_PART = re.compile(r"(?:(train)(?:ing)?|(test)(?:ing)?|(val)(?:id|idation)?|(dev))(?:[-_.\d].*)?", re.IGNORECASE)

PartName = Literal["train", "test", "validation"]


@final
@dataclass(frozen=True, eq=False)
class Part:
    """The samples of a part and what they are labelled with, as they were read: numbers, or text, which names classes.

    image_shape, weights: see `Dataset`.  classes: the names of class numbers, where a file tells them.
    """

    x: Array | Rows
    labels: Array
    image_shape: tuple[int, int, int] | None = None
    classes: tuple[str, ...] | None = None
    weights: Array | None = None


def part_of(name: str) -> PartName | None:
    """Of which part a file or folder of this name is: train, train-00000-of-00002, test_batch, val, validation, dev."""
    match = _PART.fullmatch(name)
    if match is None:
        return None
    return "train" if match[1] else "test" if match[2] else "validation"


def by_part(where: object, paths: Sequence[Path]) -> dict[PartName, list[Path]]:
    """Files or folders by the parts that their names tell; all are to train on where none tells one.

    Raises `DataError` where only some do, or none is to train on.
    """
    parts: dict[PartName, list[Path]] = {}
    others = []
    for path in sorted(paths):
        part = part_of(path.name)
        others.append(path) if part is None else parts.setdefault(part, []).append(path)
    if not parts:
        return {"train": others}
    if others:
        known = ", ".join(path.name for path in next(iter(parts.values()))[:3])
        raise DataError(
            f"{where} holds {known}, whose name tells a part, but also {others[0].name}, whose name tells none. Let "
            "all of them begin with train, test or val, or none; or name those to read, as with *.parquet."
        )
    if "train" not in parts:
        raise DataError(f"{where} holds nothing to train on: only {', '.join(sorted(parts))}.")
    return parts


def joined(parts: Mapping[PartName, Part]) -> Split:
    """Parts as data sets with the same classes.

    Without a test part that to validate with is it, and without either a fifth is set apart. Bytes are images and
    become float32 from 0 to 1.  Raises `DataError`.
    """
    classes = _classes_of(parts)
    data = {
        name: Dataset(
            scaled(part.x),
            part.labels,
            part.image_shape,
            classes if part.classes is None else part.classes,
            part.weights,
        )
        for name, part in parts.items()
    }
    if "test" not in data:
        if "validation" not in data:
            return set_apart(data["train"])
        data["test"] = data.pop("validation")
    return Split(data["train"], data["test"], data.get("validation"))


def _classes_of(parts: Mapping[PartName, Part]) -> tuple[str, ...] | None:
    """The names of classes in all parts together, sorted; None where labels are numbers."""
    named = {name: set(part.labels.tolist()) for name, part in parts.items() if are_text(part.labels)}
    if not named:
        return None
    if len(named) < len(parts):
        raise DataError(
            f"Labels are names in the part {min(named)}, but numbers in {min(parts.keys() - named.keys())}."
        )
    for name, classes in named.items():
        unseen = classes - named["train"]
        if unseen:
            warnings.warn(
                f"Nothing is labelled {listed(sorted(map(str, unseen)))} among the samples to train on, only in the "
                f"part {name}: no model can learn that.",
                DataWarning,
                stacklevel=2,
            )
    found = set().union(*named.values())
    return tuple(sorted(found)) if all(isinstance(name, str) for name in found) else None


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Let the errors of what was read from a file begin with its name."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def has_room(size_bytes: int) -> bool:
    """Whether so much is read into memory: at most a quarter of what is free. What is larger stays in its file."""
    return size_bytes <= available_memory_bytes() // _PART_OF_MEMORY


def kept(rows: Rows) -> Array | Rows:
    """Rows of a file: in memory where they have room, of the type that the file has, otherwise where they are."""
    stored = Rows(rows.storage)
    if not has_room(stored.size * rows.storage.dtype.itemsize):
        return rows
    read = np.asarray(stored)
    return read if rows.scale is None else Rows(read, scale=rows.scale)


def is_of_bytes(x: Array | Rows) -> bool:
    """Whether samples are bytes where they are kept, whatever is made of them when they are read."""
    return bool((x if isinstance(x, np.ndarray) else x.storage).dtype == np.uint8)


def scaled(x: Array | Rows) -> Array | Rows:
    """Samples from a file: bytes are images, which stay bytes, and are read as float32 from 0 to 1."""
    return Rows(x, scale=SHADE) if isinstance(x, np.ndarray) and x.dtype == np.uint8 else x


def set_apart(data: Dataset) -> Split:
    """Set a fifth of the samples apart for testing; which ones depends on their number alone."""
    num_test = max(round(_TEST_SHARE * len(data)), 1)
    if len(data) < 2:
        raise DataError(f"{len(data)} sample can't be split into samples to train on and samples to test with.")
    order = generator(0, Purpose.DATA_SPLIT).permutation(len(data))
    test, train = order[:num_test], order[num_test:]
    return Split(data.of_rows(train), data.of_rows(test))
