"""What readers of data sets share: how bytes become shades, how a test part is set apart, how errors name a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.data.dataset import Dataset, Split
from dist_relu.data.rows import Rows
from dist_relu.errors import DataError
from dist_relu.partition import Purpose, generator

_TEST_SHARE = 0.2


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Let the errors of what was read from a file begin with its name."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def scaled(x: Array) -> Array | Rows:
    """Samples from a file: bytes are images, which stay bytes, and are read as float32 from 0 to 1."""
    return Rows(x, scale=1 / 255) if x.dtype == np.uint8 else x


def set_apart(data: Dataset) -> Split:
    """Set a fifth of the samples apart for testing; which ones depends on their number alone."""
    num_test = max(round(_TEST_SHARE * len(data)), 1)
    if len(data) < 2:
        raise DataError(f"{len(data)} sample can't be split into samples to train on and samples to test with.")
    order = generator(0, Purpose.DATA_SPLIT).permutation(len(data))
    test, train = order[:num_test], order[num_test:]
    return Split(data.of_rows(train), data.of_rows(test))
