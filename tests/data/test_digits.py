"""The digits that come with the package."""

from __future__ import annotations

import sys

import numpy as np
from sklearn.datasets import load_digits as of_scikit_learn

import dist_relu as dr
from tests.programs import run


def test_the_digits_are_those_of_scikit_learn(digits: dr.data.Split) -> None:
    images, labels = of_scikit_learn(return_X_y=True)
    found = {(row.tobytes(), int(label)) for part in digits.parts for row, label in zip(part.x, part.y, strict=True)}
    scaled = (images / 16).astype(np.float32)
    assert found == {(row.tobytes(), int(label)) for row, label in zip(scaled, labels, strict=True)}


def test_they_need_no_other_package() -> None:
    done = run(
        [sys.executable, "-c", "import sys, dist_relu as d; d.data.load('digits'); print('sklearn' in sys.modules)"]
    )
    assert done.stdout.strip() == "False"
