"""A data set is cut into parts that have each of its samples once, the same ones anywhere."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dist_relu as dr
from dist_relu.data import split

DIGESTS = ["6704ffdbdaf85cfb", "f3e5cc73f4536874", "0eac3541f4b31eb5"]
"""Of seed 0, seed 0 by classes, seed 1."""


def numbered(num_samples: int, num_classes: int = 3) -> dr.Dataset:
    """Samples that are their own numbers, of classes that are unequally frequent."""
    classes = np.random.default_rng(num_samples).integers(0, num_classes, (num_samples, 2)).min(axis=1)
    return dr.Dataset(np.arange(num_samples, dtype=np.float32).reshape(-1, 1), classes)


def numbers_of(part: dr.Dataset) -> list[int]:
    numbers: list[int] = part.x[:, 0].astype(int).tolist()
    return numbers


@given(
    num_samples=st.integers(20, 300),
    weights=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    seed=st.integers(0, 2**64 - 1),
    stratify=st.booleans(),
)
def test_every_sample_is_in_one_part_and_keeps_its_target_and_its_place(
    num_samples: int, weights: list[int], seed: int, stratify: bool
) -> None:
    data, shares = numbered(num_samples), [weight / sum(weights) for weight in weights]
    parts = split(data, shares, seed, stratify=stratify)
    assert sorted(number for part in parts for number in numbers_of(part)) == list(range(num_samples))
    for part, share in zip(parts, shares, strict=True):
        assert abs(len(part) - share * num_samples) <= 1
        assert numbers_of(part) == sorted(numbers_of(part))
        np.testing.assert_array_equal(part.y, data.y[numbers_of(part)])


@given(num_samples=st.integers(20, 300), share=st.sampled_from([0.1, 0.25, 0.5]), seed=st.integers(0, 100))
def test_stratified_parts_have_their_share_of_every_class(num_samples: int, share: float, seed: int) -> None:
    data = numbered(num_samples, 4)
    _, smaller = split(data, share, seed, stratify=True)
    for number in np.unique(data.y):
        assert abs(np.sum(smaller.y == number) - share * np.sum(data.y == number)) <= 1


def test_a_number_is_the_share_of_the_second_part() -> None:
    data = numbered(50)
    for one, other in zip(split(data, 0.1), split(data, (0.9, 0.1)), strict=True):
        assert numbers_of(one) == numbers_of(other)
    assert [len(part) for part in split(data, 0.1)] == [45, 5]


def test_parts_are_the_same_everywhere_and_others_with_another_seed() -> None:
    digests = []
    for seed, stratify in ((0, False), (0, True), (1, False)):
        parts = split(numbered(1000), (0.8, 0.1, 0.1), seed, stratify=stratify)
        content = np.concatenate([part.x for part in parts]).astype("<f4").tobytes()
        digests.append(hashlib.sha256(content).hexdigest()[:16])
    assert digests == DIGESTS


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        (0.01, r"fractions=0\.01 of 30 samples leave part 1 without any"),
        ((0.5, 0.6), r"fractions=\(0\.5, 0\.6\): expected two or more that add up to 1"),
        ((1.0,), r"fractions=\(1\.0,\): expected two or more"),
        ((0.5, -0.5, 1.0), r"fractions\[1\]=-0\.5: must be above 0"),
        (1.0, r"fractions=1\.0: must be above 0 and below 1"),
    ],
)
def test_fractions_that_make_no_parts_are_refused(fractions: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split(numbered(30), fractions)


def test_strata_need_classes() -> None:
    data = dr.Dataset(np.ones((10, 2)), np.linspace(0, 1, 10))
    with pytest.raises(dr.DataError, match="stratify=True: there are no classes, the targets are float64"):
        split(data, 0.5, stratify=True)


def test_samples_to_validate_with_are_held_back_from_those_to_train_on() -> None:
    whole, data = dr.data.load("digits"), dr.data.load("digits", validation=0.1)
    assert whole.validation is None
    assert data.validation is not None
    assert [len(part) for part in data.parts] == [1294, 359, 144]
    assert data.train.image_shape == data.validation.image_shape == (8, 8, 1)
    np.testing.assert_array_equal(data.test.x, whole.test.x)
    train, validation = split(whole.train, 0.1, stratify=True)
    np.testing.assert_array_equal(data.validation.x, validation.x)
    np.testing.assert_array_equal(data.train.x, train.x)
    for share in (0.0, 1.0, 1e-6):
        with pytest.raises(ValueError, match="validation="):
            dr.data.load("digits", validation=share)
