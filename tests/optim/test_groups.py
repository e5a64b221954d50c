"""Groups of parameters: what a rule does with each, and what is said of groups that make no sense."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.core.arrays import Array


@pytest.fixture(scope="module")
def serial() -> Iterator[dr.Coordinator]:
    with dr.start(backend="serial") as coordinator:
        yield coordinator


@pytest.fixture
def data(rng: np.random.Generator) -> dr.Dataset:
    return dr.Dataset(rng.standard_normal((64, 6)).astype(np.float32), rng.integers(0, 3, 64))


def new_model() -> nn.Sequential:
    layers = nn.Dense(5), nn.LayerNorm(), nn.ReLU(), nn.Dense(3)
    return nn.Sequential(*layers, dtype="float64").build((6,)).initialize(seed=1)


def trained(serial: dr.Coordinator, data: dr.Dataset, rule: optim.Optimizer, **options: Any) -> dict[str, Array]:
    """The parameters by their names after a step over all samples."""
    model = new_model()
    serial.fit(model, data, rule, epochs=1, batch_size=len(data), **options)
    return dict(zip(model.names, model.views(model.values), strict=True))


@pytest.mark.parametrize("options", [{}, {"clip_norm": 100.0}, {"accumulate": 1, "ema_decay": 0.5}])
def test_each_parameter_follows_its_own_group(
    serial: dr.Coordinator, data: dr.Dataset, options: dict[str, Any]
) -> None:
    gradients = serial.gradients(new_model(), data)
    before = dict(zip(new_model().names, new_model().views(new_model().values), strict=True))
    groups = [optim.Group(["biases", "norms"], weight_decay=0.0), optim.Group("3.*", lr_scale=0.1)]
    after = trained(serial, data, optim.Groups(optim.SGD(0.5, weight_decay=0.2), groups), **options)
    for name, value in before.items():
        decays = name in ("0.weight", "3.weight")
        rate = 0.05 if name == "3.weight" else 0.5
        expected = value - rate * (gradients[name] + 0.2 * decays * value)
        np.testing.assert_allclose(after[name], expected, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    "rule",
    [
        optim.SGD(0.1, momentum=0.9, weight_decay=0.1),
        optim.AdamW(0.01),
        optim.RMSprop(0.01, weight_decay=0.1),
        optim.LARS(1.0, weight_decay=0.1),
        optim.LAMB(0.01, weight_decay=0.1),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_groups_that_change_nothing_cost_no_bit(
    serial: dr.Coordinator, data: dr.Dataset, rule: optim.Optimizer
) -> None:
    plain = trained(serial, data, rule)
    grouped = trained(serial, data, optim.Groups(rule, [optim.Group("0.*"), optim.Group("norms")]))
    assert all((grouped[name] == plain[name]).all() for name in plain)


def test_a_schedule_and_the_scale_of_a_run_reach_every_group(serial: dr.Coordinator, data: dr.Dataset) -> None:
    rule = optim.Groups(optim.SGD(optim.Step(0.4, every=1, factor=0.5)), [optim.Group("3.*", lr_scale=0.1)])
    model = new_model()
    with serial.trainer(model, data, rule, batch_size=64) as trainer:
        trainer.fit(epochs=1)
        assert trainer.lr == 0.2
        trainer.lr_scale = 0.5
        assert trainer.lr == 0.1
        before, gradients = model.values.copy(), serial.gradients(model, data)
        trainer.fit(epochs=1)
    moved = dict(zip(model.names, model.views((before - model.values).copy()), strict=True))
    np.testing.assert_allclose(moved["0.weight"], 0.1 * gradients["0.weight"], rtol=1e-9)
    np.testing.assert_allclose(moved["3.weight"], 0.01 * gradients["3.weight"], rtol=1e-9)


def test_no_decay_is_of_biases_and_norms() -> None:
    assert optim.no_decay(optim.AdamW()) == optim.Groups(
        optim.AdamW(), [optim.Group(["biases", "norms"], weight_decay=0.0)]
    )


def test_groups_that_make_no_sense_are_refused(serial: dr.Coordinator, data: dr.Dataset) -> None:
    with pytest.raises(ValueError, match=r"'7\.\*',.* suits no parameter .* the model has 0.weight, 0.bias, 1.weight"):
        trained(serial, data, optim.no_decay(optim.SGD(0.1), "7.*"))
    with pytest.raises(ValueError, match="suits no parameter that no group before it suits"):
        trained(serial, data, optim.Groups(optim.SGD(0.1), [optim.Group("*"), optim.Group("biases")]))
    with pytest.raises(TypeError, match="put all into one"):
        optim.Groups(optim.no_decay(optim.SGD(0.1)), [])
    with pytest.raises(ValueError, match=r"Group\(lr_scale=0\): must be"):
        optim.Group("biases", lr_scale=0)
    with pytest.raises(ValueError, match="must name some parameters"):
        optim.Group([])
