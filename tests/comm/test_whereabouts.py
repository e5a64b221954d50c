"""Where workers are, as they note it in their node's control memory."""

from __future__ import annotations

import numpy as np

from dist_relu.comm.barrier import control_shape
from dist_relu.comm.shared_memory import SharedArray
from dist_relu.comm.whereabouts import EVALUATION, PASS, SUM, Whereabouts, read


def test_a_worker_that_has_noted_nothing_yet_is_starting() -> None:
    assert str(read(SharedArray(control_shape(2), np.int64).array, 1)) == "while it started"


def test_each_worker_has_its_own_line() -> None:
    control = SharedArray(control_shape(3), np.int64).array
    workers = [Whereabouts(control, rank) for rank in range(3)]
    for worker in workers:
        worker.begin_task(7)
    workers[0].place[:2] = 41, PASS
    workers[1].place[:2] = 42, PASS
    workers[1].place[1] = SUM
    workers[2].enter(EVALUATION)
    places = [read(control, rank) for rank in range(3)]
    assert [str(place) for place in places] == [
        "in step 41, in the pass over its samples",
        "in step 42, in the sum",
        "in an evaluation",
    ]
    assert [place.name for place in places] == ["pass", "sum", "evaluation"]
    assert {place.task for place in places} == {7}
    assert places[0].since_ns <= places[2].since_ns


def test_a_worker_that_has_done_its_part_is_between_calls() -> None:
    control = SharedArray(control_shape(1), np.int64).array
    worker = Whereabouts(control, 0)
    worker.begin_task(1)
    worker.place[:2] = 0, PASS
    worker.end_task()
    assert str(read(control, 0)) == "between two calls"
