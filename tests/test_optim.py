"""Update rules against the formulas of their papers, and learning-rate schedules."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dist_relu import optim
from dist_relu.partition import PartialSums, SummationTree
from tests.twin import Array

State = list[Array]


def sgd(p: Array, g: Array, state: State, t: int) -> Array:
    return p - 0.1 * (g + 0.01 * p)


def momentum(p: Array, g: Array, state: State, t: int) -> Array:
    state[0] = 0.9 * state[0] + g + 0.01 * p
    return p - 0.1 * state[0]


def nesterov(p: Array, g: Array, state: State, t: int) -> Array:
    d = g + 0.01 * p
    state[0] = 0.9 * state[0] + d
    return p - 0.1 * (d + 0.9 * state[0])


def adam(p: Array, g: Array, state: State, t: int) -> Array:
    return _adam(p, g + 0.01 * p, state, t)


def adamw(p: Array, g: Array, state: State, t: int) -> Array:
    return _adam(p, g, state, t) - 0.1 * 0.01 * p


def _adam(p: Array, g: Array, state: State, t: int) -> Array:
    state[0] = 0.9 * state[0] + 0.1 * g
    state[1] = 0.999 * state[1] + 0.001 * g**2
    updated: Array = p - 0.1 * (state[0] / (1 - 0.9**t)) / (np.sqrt(state[1] / (1 - 0.999**t)) + 1e-8)
    return updated


RULES: list[tuple[optim.ElementwiseOptimizer, Callable[[Array, Array, State, int], Array]]] = [
    (optim.SGD(0.1, weight_decay=0.01), sgd),
    (optim.SGD(0.1, momentum=0.9, weight_decay=0.01), momentum),
    (optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01), nesterov),
    (optim.Adam(0.1, weight_decay=0.01), adam),
    (optim.AdamW(0.1, weight_decay=0.01), adamw),
]


@pytest.mark.parametrize(("rule", "reference"), RULES, ids=lambda item: getattr(item, "__name__", ""))
@pytest.mark.parametrize("size", [0, 1, 1024, 5000])
@pytest.mark.parametrize("shards", [1, 2, 5, 8])
def test_steps_are_those_of_the_paper(
    rule: optim.ElementwiseOptimizer, reference: Callable[..., Array], size: int, shards: int, rng: np.random.Generator
) -> None:
    tree = SummationTree(shards)
    carries = np.array(tree.fold(tree.leaves(0, shards))[0])
    p = rng.standard_normal(size)
    old = [p.copy()] + [np.zeros(size) for _ in range(rule.num_states)]
    state = [np.zeros(size) for _ in range(rule.num_states)]
    for step in range(3):
        rows = rng.standard_normal((shards, size + 3))
        p = reference(p, rows[:, 2 : size + 2].sum(axis=0), state, step + 1)
        new = [np.full(size, np.nan) for _ in old]
        gradient = PartialSums(rows, 2, carries, np.empty((shards, 1024)))
        rule.update(gradient, old, new, np.array(rule.hyper(step, 0.0)))
        old = new
    for ours, expected in zip(old, [p, *state], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (optim.Constant(2.0), [2, 2, 2, 2, 2]),
        (optim.Step(2.0, every=2, factor=0.5), [2, 2, 1, 1, 0.5]),
        (optim.Cosine(2.0, epochs=4), [2, 1 + 2**-0.5, 1, 1 - 2**-0.5, 0]),
        (optim.Cosine(2.0, epochs=2, final=1.0), [2, 1.5, 1, 1, 1]),
        (optim.WarmUp(optim.Constant(2.0), epochs=2), [0, 1, 2, 2, 2]),
    ],
    ids=repr,
)
def test_schedules(schedule: optim.Schedule, expected: list[float]) -> None:
    assert [schedule.at(epoch) for epoch in range(5)] == pytest.approx(expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.SGD(lr=0),
        lambda: optim.SGD(lr=float("nan")),
        lambda: optim.SGD(momentum=1.0),
        lambda: optim.SGD(nesterov=True),
        lambda: optim.SGD(weight_decay=-1),
        lambda: optim.Adam(beta1=1.0),
        lambda: optim.AdamW(epsilon=0),
        lambda: optim.Step(0.1, every=0),
        lambda: optim.Cosine(0.1, epochs=0),
        lambda: optim.WarmUp(optim.Constant(0.1), epochs=0),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"must be|needs"):
        make()
