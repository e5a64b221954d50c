"""Gradients that are compressed between groups of shards: the right values, and the same bits wherever it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import compression, optim
from tests import twin
from tests.cases import chaos
from tests.conformance.test_step_options import model_with_statistics
from tests.conftest import small_model
from tests.twin import Array

SHARDS = 8
BATCH = 96
SGD = optim.SGD(0.1, momentum=0.9)
CASES: dict[str, dict[str, Any]] = {
    "bfloat16": {"optimizer": SGD, "compression": compression.Rounded(groups=4)},
    "float16": {"optimizer": SGD, "compression": compression.Rounded("float16", 1), "on_nan": "skip"},
    "top k": {"optimizer": SGD, "compression": compression.TopK(0.1, groups=2)},
    "top k of shards": {"optimizer": optim.AdamW(0.01), "compression": compression.TopK(0.01), "ema_decay": 0.9},
    "powersgd": {"optimizer": SGD, "compression": compression.PowerSGD(2)},
    "top k, and everything": {
        "optimizer": optim.LAMB(0.01),
        "compression": compression.TopK(0.05, groups=4),
        "clip_norm": 0.5,
        "ema_decay": 0.9,
        "accumulate": 2,
        "stale_gradients": True,
    },
    "powersgd, and everything": {
        "optimizer": optim.no_decay(optim.LAMB(0.01, weight_decay=0.01)),
        "compression": compression.PowerSGD(1),
        "clip_value": 0.1,
        "ema_decay": 0.9,
        "accumulate": 2,
    },
}
OFTEN = ["powersgd", "top k, and everything"]
RARELY = [case for case in CASES if case not in OFTEN]


def trainer_of(
    place: dr.Coordinator, data: dr.Dataset, case: str, dtype: str = "float32", state: dr.RunState | None = None
) -> dr.Trainer:
    model = model_with_statistics(dtype)
    return place.trainer(model, data, batch_size=BATCH, shards=SHARDS, seed=1, state=state, **CASES[case])


@pytest.mark.parametrize("case", [*OFTEN, *chaos(*RARELY)])
def test_compressed_gradients_lead_to_the_same_bits_here_and_elsewhere_and_go_on_from_there(
    coordinator: dr.Coordinator, digits: dr.data.Split, tmp_path: Path, case: str
) -> None:
    state = None
    with dr.start(backend="serial") as serial:
        with trainer_of(serial, digits.train, case) as trainer:
            trainer.fit(steps=13)
            expected = trainer.state()
        for place, stop in ((coordinator, 4), (serial, 9), (coordinator, 13)):
            with trainer_of(place, digits.train, case, state=state) as trainer:
                trainer.fit(steps=stop - trainer.step)
                dr.save_state(trainer.state(), tmp_path / "state")
            state = dr.load_state(tmp_path / "state")
    assert state is not None
    assert state.first_difference(expected) is None


@pytest.mark.parametrize("case", chaos("float16", "top k", "powersgd"))
def test_so_do_they_in_double_precision(coordinator: dr.Coordinator, digits: dr.data.Split, case: str) -> None:
    states = []
    with dr.start(backend="serial") as serial:
        for place in (serial, coordinator):
            with trainer_of(place, digits.train, case, "float64") as trainer:
                trainer.fit(steps=5)
                states.append(trainer.state())
    assert states[0] == states[1]


def group_gradients(params: list[Array], x: Array, y: Array, groups: int) -> list[list[Array]]:
    """The gradients of groups of neighbouring samples, whose sum is that of their mean loss, by parameter."""
    found = []
    for part in np.split(np.arange(len(x)), groups):
        gradients = twin.Mlp(params).gradients(x[part], y[part])
        weights, biases = gradients[: len(params) // 2], gradients[len(params) // 2 :]
        found.append([g / groups for pair in zip(weights, biases, strict=True) for g in pair])
    return found


def largest_alone(x: Array, share: float) -> Array:
    kept = np.zeros_like(x)
    places = np.argsort(-np.abs(x.reshape(-1)), kind="stable")[: int(np.ceil(share * x.size))]
    kept.reshape(-1)[places] = x.reshape(-1)[places]
    return kept


def train_plainly(params: list[Array], x: Array, y: Array, how: compression.Compression, steps: int) -> list[Array]:
    """Gradient descent at a rate of 0.1 on the batches of x and y, one after another."""
    params = [param.copy() for param in params]
    groups = how.num_groups(SHARDS) or 1
    errors = [[np.zeros_like(param) for param in params] for _ in range(groups)]
    for step in range(steps):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        total = [np.zeros_like(param) for param in params]
        for error, gradients in zip(errors, group_gradients(params, x[rows], y[rows], groups), strict=True):
            for number, gradient in enumerate(gradients):
                if isinstance(how, compression.TopK):
                    left = largest_alone(gradient + error[number], how.share)
                    error[number] += gradient - left
                else:
                    left = gradient.astype(np.float16).astype(np.float64)
                total[number] += left
        if isinstance(how, compression.Rounded):
            total = [one.astype(np.float16).astype(np.float64) for one in total]
        params = [param - 0.1 * one for param, one in zip(params, total, strict=True)]
    return params


@pytest.mark.parametrize("how", [*chaos(compression.TopK(0.1, groups=4)), compression.Rounded("float16", 2)], ids=repr)
def test_steps_are_those_of_plain_numpy(
    coordinator: dr.Coordinator, digits: dr.data.Split, how: compression.Compression
) -> None:
    model = small_model("float64").build((64,)).initialize(seed=3)
    expected = train_plainly([param.value for param in model.params], digits.train.x, digits.train.y, how, steps=6)
    trainer = coordinator.trainer(
        model, digits.train, optim.SGD(0.1), batch_size=BATCH, shards=SHARDS, shuffle=False, compression=how
    )
    with trainer:
        trainer.fit(steps=6)
    for param, value in zip(model.params, expected, strict=True):
        np.testing.assert_allclose(param.value, value, rtol=1e-4, atol=1e-6)


def test_what_low_rank_leaves_out_comes_with_later_steps(coordinator: dr.Coordinator, digits: dr.data.Split) -> None:
    """At a rate that leaves parameters where they are, gradients of one batch add up to what was sent and left."""
    model = small_model("float64").build((64,)).initialize(seed=3)
    before = model.values.copy()
    batch = dr.Dataset(digits.train.x[:BATCH], digits.train.y[:BATCH])
    trainer = coordinator.trainer(
        model, batch, optim.SGD(1e-9), batch_size=BATCH, shards=SHARDS, compression=compression.PowerSGD(1)
    )
    with trainer:
        trainer.fit(steps=4)
        state = trainer.state()
    params = [view.copy() for view in model.views(before)]
    (gradients,) = group_gradients(params, batch.x, batch.y, groups=1)
    names = list(state.vector_names)
    sent, left = (before - state.vectors[0]) / 1e-9, state.vectors[names.index("error")]
    whole = 4 * np.concatenate([gradient.reshape(-1) for gradient in gradients])
    assert np.abs(left).max() > 1e-3
    np.testing.assert_allclose(sent + left, whole, atol=1e-5)


def test_groups_that_are_no_nodes_of_the_tree_are_refused(coordinator: dr.Coordinator, digits: dr.data.Split) -> None:
    with pytest.raises(dr.PartitionError, match=r"3 groups .* over 8 shards\. Pass groups=1 or 2 or 4 or 8\."):
        coordinator.fit(
            small_model(),
            digits.train,
            SGD,
            epochs=1,
            batch_size=BATCH,
            shards=SHARDS,
            compression=compression.TopK(groups=3),
        )
