"""Which way is the fastest is decided by the times of turns that are given here, on a clock of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from dist_relu.run.race import Outcome, race

TURN_S = 1.0


class Track:
    """Every turn takes a second, and has three steps.

    times: of a step, by way and number of the turn, from 0 on.  drift: by so much all become slower in a second.
    """

    def __init__(self, times: dict[int, Callable[[int], float]], drift: float = 0.0) -> None:
        self._times, self._drift = times, drift
        self.now_s = 0.0
        self.turns: list[int] = []

    def take_turn(self, value: int) -> Sequence[float]:
        number = self.turns.count(value)
        self.turns.append(value)
        step_s = self._times[value](number) * (1 + self._drift * self.now_s)
        self.now_s += TURN_S
        return [step_s, step_s, 100 * step_s]  # whatever disturbs one step

    def race(self, seconds: float = 60) -> Outcome:
        return race(list(self._times), self.take_turn, seconds=seconds, clock=lambda: self.now_s)


def constant(step_s: float) -> Callable[[int], float]:
    return lambda _: step_s


def test_two_turns_decide_where_the_difference_is_large() -> None:
    track = Track({1: constant(2.0), 2: constant(1.0)})
    outcome = track.race()
    assert (outcome.value, outcome.left) == (2, [2])
    assert track.turns == [2, 1, 1, 2]
    assert outcome.seconds == 4
    assert [(runner.value, runner.steps, runner.median_s) for runner in outcome.runners] == [(1, 6, 2.0), (2, 6, 1.0)]


def test_five_turns_decide_where_it_is_small() -> None:
    track = Track({1: constant(1.05), 2: constant(1.0)})
    outcome = track.race()
    assert (outcome.value, outcome.left) == (2, [2])
    assert len(track.turns) == 10


def test_the_cheapest_is_taken_of_those_that_are_as_fast() -> None:
    track = Track({1: lambda turn: 0.99 if turn % 2 else 1.02, 2: constant(1.5), 4: constant(1.0)})
    outcome = track.race(seconds=30)
    assert outcome.value == 1
    assert outcome.left == [1, 4]


def test_a_faster_one_is_taken_though_it_was_slower_once() -> None:
    outcome = Track({1: constant(1.0), 2: lambda turn: 1.5 if turn == 1 else 0.8}).race(seconds=20)
    assert (outcome.value, outcome.left) == (2, [1, 2])


def test_what_slows_a_machine_down_bit_by_bit_slows_all_alike() -> None:
    assert Track({1: constant(1.0), 2: constant(0.95)}, drift=0.01).race(seconds=30).value == 2
    assert Track({1: constant(0.95), 2: constant(1.0)}, drift=0.01).race(seconds=30).value == 1


def test_those_that_dropped_out_take_no_more_turns() -> None:
    track = Track({1: constant(4.0), 2: constant(1.02), 4: constant(1.0)})
    outcome = track.race()
    assert outcome.value == 4
    assert (track.turns.count(1), track.turns.count(2), track.turns.count(4)) == (2, 5, 5)


@pytest.mark.parametrize("seconds", [0.5, 3.5])
def test_time_is_up_behind_a_round_and_all_have_had_one(seconds: float) -> None:
    track = Track({1: constant(1.0), 2: constant(1.005)})
    outcome = track.race(seconds)
    assert outcome.value == 1
    assert len(track.turns) == (4 if seconds < 1 else 6)
