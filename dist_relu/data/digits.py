"""The digits: 1,797 images of handwritten ones, which come with the package.  Where they are from: digits.LICENSE."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dist_relu.data.archives import read_numpy
from dist_relu.data.dataset import Dataset, Split
from dist_relu.data.parts import set_apart

_WHITE = 16
"""The pixels go from 0 to this."""


def load_digits() -> Split:
    """Rows of 64 pixels in [0, 1], and the digits that they show; a fifth is set apart for testing."""
    arrays = read_numpy(Path(__file__).with_name("digits.npz"))
    return set_apart(Dataset((arrays["x"] / _WHITE).astype(np.float32), arrays["y"].astype(np.int64), (8, 8, 1)))
