"""Update rules against the formulas of their papers, and learning-rate schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest

from dist_relu import optim
from dist_relu.kernels import norms
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


def rmsprop(p: Array, g: Array, state: State, t: int) -> Array:
    d = g + 0.01 * p
    state[0] = 0.9 * state[0] + 0.1 * d**2
    updated: Array = p - 0.1 * d / (np.sqrt(state[0]) + 1e-8)
    return updated


def momentum_rmsprop(p: Array, g: Array, state: State, t: int) -> Array:
    d = g + 0.01 * p
    state[0] = 0.9 * state[0] + 0.1 * d**2
    state[1] = 0.5 * state[1] + d / (np.sqrt(state[0]) + 1e-8)
    return p - 0.1 * state[1]


RULES: list[tuple[optim.ElementwiseOptimizer, Callable[[Array, Array, State, int], Array]]] = [
    (optim.SGD(0.1, weight_decay=0.01), sgd),
    (optim.SGD(0.1, momentum=0.9, weight_decay=0.01), momentum),
    (optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01), nesterov),
    (optim.Adam(0.1, weight_decay=0.01), adam),
    (optim.AdamW(0.1, weight_decay=0.01), adamw),
    (optim.RMSprop(0.1, alpha=0.9, weight_decay=0.01), rmsprop),
    (optim.RMSprop(0.1, alpha=0.9, momentum=0.5, weight_decay=0.01), momentum_rmsprop),
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


TORCH_RULES: list[tuple[optim.ElementwiseOptimizer, str, dict[str, Any]]] = [
    (optim.SGD(0.1, weight_decay=0.01), "SGD", {"lr": 0.1, "weight_decay": 0.01}),
    (optim.SGD(0.1, momentum=0.9), "SGD", {"lr": 0.1, "momentum": 0.9}),
    (optim.SGD(0.1, momentum=0.9, nesterov=True), "SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (optim.Adam(weight_decay=0.1), "Adam", {"weight_decay": 0.1}),
    (optim.AdamW(), "AdamW", {}),
    (optim.RMSprop(weight_decay=0.1), "RMSprop", {"weight_decay": 0.1}),
    (optim.RMSprop(momentum=0.9), "RMSprop", {"momentum": 0.9}),
]


@pytest.mark.parametrize(("rule", "name", "options"), TORCH_RULES, ids=lambda item: str(item).partition("(")[0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.peer
def test_steps_are_those_of_pytorch(
    rule: optim.ElementwiseOptimizer, name: str, options: dict[str, Any], dtype: str, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Parameter(torch.tensor(rng.standard_normal(3000).astype(dtype)))
    optimizer = getattr(torch.optim, name)([theirs], **options)
    old = [theirs.detach().numpy().copy()] + [np.zeros(3000, dtype) for _ in range(rule.num_states)]
    for step in range(5):
        g = rng.standard_normal((1, 3000)).astype(dtype)
        theirs.grad = torch.tensor(g[0])
        optimizer.step()
        new = [np.empty_like(row) for row in old]
        gradient = PartialSums(g, 0, np.zeros(1, np.int64), np.empty((1, 1024), dtype))
        rule.update(gradient, old, new, np.array(rule.hyper(step, 0.0), dtype))
        old = new
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(old[0], theirs.detach().numpy(), rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 1000, 5000])
def test_norms_and_clipping_are_those_of_numpy(size: int, rng: np.random.Generator) -> None:
    x = rng.standard_normal(size).astype(np.float32)
    g, y = rng.standard_normal((2, size)).astype(np.float32)
    expected = [(z.astype(np.float64) ** 2).sum() for z in (g, x, y - x)]
    assert norms.sum_of_squares(g) == pytest.approx(expected[0], rel=1e-13)
    assert norms.squares_of_change(x, y) == pytest.approx(expected[1:], rel=1e-13)
    parts = np.array([g, g])  # the ordered sum of which begins at column 0, or one alone, at any column
    stack = np.empty((1, 1024), np.float32)
    alone, both = ((parts, 0, np.array(carries), stack, x, y) for carries in ([0], [0, 1]))
    assert norms.squares_of_step(*alone) == pytest.approx(expected, rel=1e-13)
    assert norms.squares_of_step(*both) == pytest.approx([4 * expected[0], *expected[1:]], rel=1e-13)
    clipped = x.copy()
    norms.clip(clipped, 0.5)
    np.testing.assert_array_equal(clipped, np.clip(x, np.float32(-0.5), np.float32(0.5)))


def test_clipping_lets_through_what_is_no_number() -> None:
    x = np.array([np.nan, np.inf, -np.inf, -0.0])
    norms.clip(x, 1.0)
    np.testing.assert_array_equal(x, [np.nan, 1, -1, 0])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (optim.Constant(2.0), [2, 2, 2, 2, 2]),
        (optim.Step(2.0, every=2, factor=0.5), [2, 2, 1, 1, 0.5]),
        (optim.Cosine(2.0, epochs=4), [2, 1 + 2**-0.5, 1, 1 - 2**-0.5, 0]),
        (optim.Cosine(2.0, epochs=2, final=1.0), [2, 1.5, 1, 1, 1]),
        (optim.Exponential(2.0, 0.5, epochs=2), [2, 1, 0.5, 0.5, 0.5]),
        (optim.Polynomial(2.0, epochs=4), [2, 1.5, 1, 0.5, 0]),
        (optim.Polynomial(2.0, epochs=2, power=2, final=1.0), [2, 1.25, 1, 1, 1]),
        (optim.OneCycle(2.0, epochs=4, rise=0.5, first=2, last=10), [1, 1.5, 2, 1.05, 0.1]),
        (
            optim.OneCycle(2.0, epochs=4, rise=0.25, first=4, last=5, shape="linear"),
            [0.5, 2, 1.3666667, 0.7333333, 0.1],
        ),
        (optim.WarmUp(optim.Constant(2.0), epochs=2), [0, 1, 2, 2, 2]),
        (optim.LargeBatch(optim.Constant(2.0), 320, 64, warm_up=2), [2, 6, 10, 10, 10]),
        (optim.LargeBatch(optim.Step(2.0, every=3, factor=0.5), 256, 64, "sqrt", warm_up=0), [4, 4, 4, 2, 2]),
        (optim.LargeBatch(optim.Constant(2.0), 32, 64, warm_up=1), [2, 1, 1, 1, 1]),
    ],
    ids=repr,
)
def test_schedules(schedule: optim.Schedule, expected: list[float]) -> None:
    assert [schedule.at(epoch) for epoch in range(5)] == pytest.approx(expected)


@pytest.mark.peer
@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_schedules_have_the_values_of_pytorch(shape: Literal["cosine", "linear"]) -> None:
    torch: Any = pytest.importorskip("torch")
    rates = torch.optim.lr_scheduler
    steps, rise = 50, 0.3
    # Its first step is the start and its last one the end; ours ask for the middle of a step.
    one_cycle = optim.OneCycle(0.5, steps - 1, rise=(rise * steps - 1) / (steps - 1), shape=shape)
    options = {"total_steps": steps, "pct_start": rise, "anneal_strategy": "cos" if shape == "cosine" else "linear"}
    pairs: list[tuple[optim.Schedule, Callable[[Any], Any]]] = [
        (one_cycle, lambda o: rates.OneCycleLR(o, max_lr=0.5, **options)),
        (optim.Polynomial(0.5, 40, power=0.9), lambda o: rates.PolynomialLR(o, total_iters=40, power=0.9)),
        (optim.Exponential(0.5, 0.5 * 0.9**steps, steps), lambda o: rates.ExponentialLR(o, gamma=0.9)),
        (optim.Cosine(0.5, steps, final=0.1), lambda o: rates.CosineAnnealingLR(o, steps, eta_min=0.1)),
    ]
    for ours, theirs in pairs:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
        schedule, found = theirs(optimizer), []
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        assert [ours.at(step) for step in range(steps)] == pytest.approx(found, rel=1e-9), ours


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
        lambda: optim.RMSprop(alpha=1.0),
        lambda: optim.RMSprop(epsilon=0),
        lambda: optim.LARS(trust=0),
        lambda: optim.LARS(momentum=1),
        lambda: optim.LAMB(weight_decay=-1),
        lambda: optim.LAMB(beta2=1),
        lambda: optim.Step(0.1, every=0),
        lambda: optim.Cosine(0.1, epochs=0),
        lambda: optim.Polynomial(0.1, 5, power=0),
        lambda: optim.Polynomial(0.1, 5, final=0.2),
        lambda: optim.OneCycle(0.1, 5, rise=1),
        lambda: optim.OneCycle(0.1, 5, first=0.5),
        lambda: optim.WarmUp(optim.Constant(0.1), epochs=0),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"must be|needs"):
        make()
