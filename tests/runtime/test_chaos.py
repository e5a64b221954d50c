"""Trainings that are disturbed at random moments end with the same bits, and leave nothing behind.

`make chaos` does so by the hundred, see `tests.chaos`.
"""

from __future__ import annotations

import pytest

from tests.chaos import strikes
from tests.chaos.disturbances import Plan, carry_out, resize
from tests.chaos.strikes import Strike
from tests.chaos.table import Row
from tests.chaos.trainings import CNN, RNN, Training
from tests.ray_clusters import RayCluster


def disturbed(training: Training, backend: str, strike: Strike, *phases: str) -> Row:
    row = Row("disturbed")
    plan = Plan(training=training, backend=backend, workers=3, on_failure="replace", phases=phases, seed=1)
    carry_out(plan, row, strike)
    return row


@pytest.mark.long
def test_workers_are_killed_at_random_moments() -> None:
    row = disturbed(RNN, "local", strikes.kill, "pass", "evaluation", "recovery")
    assert row.is_good, row


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("strike", "phases"),
    [
        (strikes.kill, ("start", "recovery", "sum", "update", "switch", "checkpoint")),
        (strikes.kill_two, ("pass", "recovery")),
        (strikes.stop, ("start", "pass", "recovery")),
        (strikes.kill_supervisor, ("start", "recovery", "pass", "recovery")),
    ],
    ids=["killed", "two killed", "stopped", "supervisor killed"],
)
def test_workers_are_struck_in_every_way(strike: Strike, phases: tuple[str, ...]) -> None:
    row = disturbed(CNN, "local", strike, *phases)
    assert row.is_good, row


@pytest.mark.chaos
def test_actors_are_killed_at_random_moments(ray_cluster: RayCluster) -> None:
    row = disturbed(RNN, "ray", strikes.kill, "start", "pass", "recovery", "evaluation")
    assert row.is_good, row


@pytest.mark.chaos
def test_the_number_of_workers_changes_again_and_again() -> None:
    row = Row("resized")
    resize("local", 20, row)
    assert row.is_good, row
