"""Replicas are averaged after every so many steps, to the same bits on any number of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.data import Augment
from tests import twin
from tests.cases import chaos
from tests.conformance.test_trainer import IMAGES, MODELS, X, Y, digests
from tests.twin import Array

REPLICAS = 4
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "local sgd": ("mlp", {"optimizer": optim.SGD(0.1, momentum=0.9), "averaging": optim.LocalSGD(REPLICAS, 3)}),
    "local lamb, with all options": (
        "cnn",
        {
            "optimizer": optim.LAMB(0.01),
            "averaging": optim.LocalSGD(REPLICAS, 2),
            "clip_norm": 1.0,
            "ema_decay": 0.9,
            "accumulate": 2,
            "stale_gradients": True,
            "class_weight": {1: 2.0},
        },
    ),
    "diloco": ("mlp", {"optimizer": optim.AdamW(0.01), "averaging": optim.DiLoCo(REPLICAS, 4)}),
    "diloco of a cnn": (
        "cnn",
        {
            "optimizer": optim.SGD(optim.Cosine(0.1, 4)),
            "averaging": optim.DiLoCo(REPLICAS, 3, outer_momentum=0.0),
            "augment": Augment(crop=1, flip=True, mixup=0.2),
        },
    ),
}
OFTEN = ["diloco"]
RARELY = [case for case in CASES if case not in OFTEN]


def trainer_of(place: dr.Coordinator, case: str, state: dr.RunState | None = None, **more: Any) -> dr.Trainer:
    model, options = CASES[case]
    x, make = MODELS[model]
    return place.trainer(make(), (x, Y), batch_size=18, shards=8, seed=5, state=state, **options, **more)


@pytest.mark.parametrize("case", [*OFTEN, *chaos(*RARELY)])
def test_replicas_are_the_same_on_any_number_of_workers_and_go_on_from_files(
    coordinator: dr.Coordinator, tmp_path: Path, case: str
) -> None:
    with dr.start(backend="serial") as alone:
        with trainer_of(alone, case) as trainer:
            trainer.fit(epochs=3)
            expected, whole = digests(trainer), trainer.state()
        with trainer_of(coordinator, case) as trainer:
            trainer.fit(epochs=1)
            trainer.fit(steps=1)
            dr.save_state(trainer.state(), tmp_path / "state")
        with trainer_of(alone, case, dr.load_state(tmp_path / "state")) as trainer:
            trainer.fit(steps=2)
            state = trainer.state()
        with trainer_of(coordinator, case, state) as trainer:
            trainer.fit(steps=whole.step - state.step)
            assert digests(trainer) == expected
            assert trainer.state().first_difference(whole) is None


def test_one_replica_is_usual_training(coordinator: dr.Coordinator) -> None:
    arguments: dict[str, Any] = {"batch_size": 16, "shards": 4, "seed": 5, "epochs": 2}
    with dr.start(backend="serial") as alone:
        usual, replica = (nn.mlp((20,), 3) for _ in range(2))
        losses = [
            list(alone.fit(model, (X, Y), optim.Adam(0.01), averaging=averaging, **arguments).losses)
            for model, averaging in ((usual, None), (replica, optim.LocalSGD(1, 3)))
        ]
    assert replica.sha256() == usual.sha256()
    assert losses[0] == losses[1]


def rounds_in_numpy(model: nn.Sequential, data: dr.Dataset, steps: int) -> list[list[Array]]:
    """The parameters of all replicas after some steps of plain descent, in the order of the data."""
    params = [[view.astype(np.float64) for view in model.views(model.values)] for _ in range(REPLICAS)]
    for step in range(steps):
        rows = np.arange(40 * step, 40 * (step + 1)).reshape(REPLICAS, -1)
        for own, mine in zip(params, rows, strict=True):
            gradients = twin.Mlp(own).gradients(data.x[mine], data.y[mine])
            both = zip(gradients[: len(own) // 2], gradients[len(own) // 2 :], strict=True)
            for p, g in zip(own, [g for pair in both for g in pair], strict=True):
                p[...] -= 0.1 * g
    return params


@pytest.mark.parametrize(
    "averaging", [optim.LocalSGD(REPLICAS, 3), optim.DiLoCo(REPLICAS, 3, outer_lr=0.5, outer_momentum=0.8)]
)
def test_averages_are_those_of_plain_numpy(
    coordinator: dr.Coordinator, digits: dr.data.Split, averaging: optim.LocalSGD | optim.DiLoCo
) -> None:
    data = dr.Dataset(digits.train.x[:120], digits.train.y[:120])
    model = nn.mlp((12,), 10, "float64").build((64,)).initialize(seed=3)
    before = [view.copy() for view in model.views(model.values)]
    params = rounds_in_numpy(model, data, 3)
    mean = [np.mean(of_all, axis=0) for of_all in zip(*params, strict=True)]
    coordinator.fit(model, data, optim.SGD(0.1), epochs=1, batch_size=40, shards=4, shuffle=False, averaging=averaging)
    factor = 0.5 * 1.8 if isinstance(averaging, optim.DiLoCo) else 1.0
    for param, old, new in zip(model.params, before, mean, strict=True):
        np.testing.assert_allclose(param.value, old - factor * (old - new), rtol=1e-8, atol=1e-12)


def test_between_two_averages_the_model_is_the_mean_of_replicas(coordinator: dr.Coordinator) -> None:
    with trainer_of(coordinator, "diloco") as trainer:
        trainer.fit(steps=5)
        state = trainer.state()
        assert trainer.model.sha256() == state.params_sha256
    replicas = [
        vector
        for name, vector in zip(state.vector_names, state.vectors, strict=True)
        if name.startswith("replica") and name.endswith("parameters")
    ]
    assert len({vector.tobytes() for vector in replicas}) == REPLICAS
    np.testing.assert_allclose(state.vectors[0], np.mean(replicas, axis=0), rtol=1e-5, atol=1e-7)


def test_replicas_draw_what_the_shards_of_one_model_would(coordinator: dr.Coordinator) -> None:
    """Descent by one step each is descent along the mean gradient, whatever is drawn at random for it."""
    models = [nn.Sequential(nn.Dense(20), nn.ReLU(), nn.Dropout(0.5), nn.Dense(3), dtype="float64") for _ in range(2)]
    x = X[:64].astype("float64")
    for model, averaging in zip(models, (None, optim.LocalSGD(REPLICAS, 1)), strict=True):
        coordinator.fit(
            model, (x, Y[:64]), optim.SGD(0.1), epochs=2, batch_size=16, shards=8, seed=1, averaging=averaging
        )
    np.testing.assert_allclose(models[1].values, models[0].values, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:The samples are large")
def test_a_replica_that_meets_what_is_no_number_stops_the_run_before_that_step(coordinator: dr.Coordinator) -> None:
    x = X.copy()
    x[41] = 3e38
    arguments: dict[str, Any] = {"batch_size": 16, "shards": 8, "shuffle": False}
    averaging = optim.LocalSGD(REPLICAS, 4)
    trainer = coordinator.trainer(nn.mlp((8,), 3), (x, Y), optim.SGD(0.01), averaging=averaging, **arguments)
    with trainer, pytest.raises(dr.TrainingDiverged, match=r"in step 2 .* First in shard 4 .* for sample 41") as caught:
        trainer.fit(epochs=1)
    assert (trainer.step, caught.value.shard, caught.value.sample) == (2, 4, 41)
    with coordinator.trainer(nn.mlp((8,), 3), (x, Y), optim.SGD(0.01), averaging=averaging, **arguments) as again:
        again.fit(steps=2)
        assert again.state() == caught.value.state


def test_parameters_that_become_infinite_are_found_where_they_do(coordinator: dr.Coordinator) -> None:
    averaging = optim.LocalSGD(REPLICAS, 100)
    with (
        coordinator.trainer(
            nn.mlp((8,), 3), (X, Y), optim.SGD(1e30), batch_size=16, shards=4, averaging=averaging
        ) as trainer,
        pytest.raises(dr.TrainingDiverged, match=r"(Parameters|The loss) became"),
    ):
        trainer.fit(epochs=2)
    assert np.isfinite(trainer.model.values).all()


@pytest.mark.filterwarnings("ignore:The samples are large")
def test_a_run_whose_first_loss_is_no_number_says_so(coordinator: dr.Coordinator) -> None:
    x = np.full_like(X, 3e38)
    averaging = optim.LocalSGD(REPLICAS, 3)
    trainer = coordinator.trainer(nn.mlp((8,), 3), (x, Y), optim.SGD(0.1), batch_size=16, shards=8, averaging=averaging)
    with trainer, pytest.raises(dr.TrainingDiverged, match="The loss became nan in step 0"):
        trainer.fit(steps=3)


@pytest.mark.filterwarnings("ignore:The samples are large")
def test_running_means_that_become_infinite_are_found_where_they_do_though_no_loss_depends_on_them() -> None:
    bad, num_steps = 33, 64
    x = np.random.default_rng(3).standard_normal((num_steps, 10, 4), np.float32)
    x[bad] *= np.float32(1e25)
    y = np.arange(10 * num_steps) % 3
    arguments: dict[str, Any] = {"batch_size": 10, "shards": 2, "shuffle": False, "seed": 5}

    def trainer(place: dr.Coordinator) -> dr.Trainer:
        model = nn.Sequential(nn.BatchNorm(scope="shard"), nn.Dense(3))
        averaging = optim.LocalSGD(2, num_steps)
        return place.trainer(model, (x.reshape(-1, 4), y), optim.SGD(0.1), averaging=averaging, **arguments)

    with dr.start(backend="serial") as alone, trainer(alone) as run, trainer(alone) as until_there:
        with pytest.raises(dr.TrainingDiverged, match=f"in step {bad} .*the statistic of 0.running_variance is inf"):
            run.fit(steps=num_steps)
        until_there.fit(steps=bad)
        assert run.state() == until_there.state()


def test_the_first_replica_is_watched_and_bits_stay_as_they_are(coordinator: dr.Coordinator) -> None:
    seen: list[dr.WatchedStep] = []
    epochs: list[dr.EpochSummary] = []
    watch = dr.Watch(every=3, on_step=seen.append, on_epoch=epochs.append)
    with trainer_of(coordinator, "diloco") as trainer, trainer_of(coordinator, "diloco", watch=watch) as watched:
        for one in (trainer, watched):
            one.fit(epochs=2)
        assert watched.state() == trainer.state()
    assert [step.step for step in seen] == [0, 3, 6]
    assert all(step.params[0].gradient_norm > 0 for step in seen)
    assert [epoch.dead is None for epoch in epochs] == [False, False]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shards": 6}, "6 shards can't be shared equally by 4 replicas"),
        ({"on_nan": "skip"}, 'on_nan="skip" goes with one model'),
        ({"trace": dr.Trace()}, "trace is of steps that all workers take together"),
        (
            {"compression": dr.compression.TopK()},
            "compression=.* is of gradients, and the replicas .* exchange none",
        ),
        ({"verify_every": 2}, "verify_every compares what several workers make of a shard"),
    ],
    ids=str,
)
def test_what_replicas_cannot_do_is_refused(coordinator: dr.Coordinator, arguments: dict[str, Any], words: str) -> None:
    given = {"batch_size": 16, "shards": 8, **arguments}
    with pytest.raises(ValueError, match=words):
        coordinator.trainer(
            nn.mlp((8,), 3), (IMAGES.reshape(70, -1), Y), optim.SGD(), averaging=optim.LocalSGD(REPLICAS, 2), **given
        )
