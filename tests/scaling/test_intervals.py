"""Intervals hold what they estimate as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from dist_relu.scaling.intervals import Interval, median, paired_ratio


def test_a_ratio_is_that_of_the_same_steps() -> None:
    steps = np.array([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    ratio = paired_ratio(steps * 3, steps)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((3, 3, 3))


@pytest.mark.long
def test_intervals_of_few_rounds_hold_the_true_median_about_as_often_as_they_say(rng: np.random.Generator) -> None:
    held = 0
    for number in range(100):
        of_rounds = rng.lognormal(0, 0.05, (5, 1))
        interval = median(of_rounds * rng.lognormal(0, 0.05, (5, 20)), seed=number)
        assert interval.low <= interval.value <= interval.high
        held += interval.low <= 1 <= interval.high
    assert held >= 92  # of 95 that are expected


def test_what_disturbs_a_whole_round_widens_the_interval(rng: np.random.Generator) -> None:
    calm = rng.lognormal(0, 0.05, (5, 50))
    disturbed = calm * np.array([[1], [1.3], [1], [0.8], [1.1]])
    assert width(median(disturbed)) > 2 * width(median(calm))


def test_an_interval_can_be_scaled() -> None:
    assert Interval(1, 0.5, 2) * 100 == Interval(100, 50, 200)


def width(interval: Interval) -> float:
    return interval.high - interval.low
