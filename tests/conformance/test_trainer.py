"""A run goes on to the same bits however it is cut into calls, and whatever ends one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from tests.cases import long

RNG = np.random.default_rng(3)
X = RNG.standard_normal((70, 6)).astype("float32")
Y = RNG.integers(0, 3, 70)
IMAGES = RNG.standard_normal((70, 6, 6, 1)).astype("float32")
SERIES = RNG.standard_normal((70, 5, 3)).astype("float32")
STEPS_PER_EPOCH = 5  # of batches of 16

MODELS: dict[str, tuple[Any, Callable[[], nn.Sequential]]] = {
    "mlp": (X, lambda: nn.mlp((20,), 3)),
    "cnn": (
        IMAGES,
        lambda: nn.Sequential(nn.Conv2d(4, 3), nn.BatchNorm(), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Dense(3)),
    ),
    "rnn": (SERIES, lambda: nn.rnn(8, 3)),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "momentum": {"optimizer": optim.SGD(optim.Cosine(0.1, 5), momentum=0.9)},
    "adamw, accumulated": {"optimizer": optim.AdamW(0.01), "accumulate": 2},
    "lamb, clipped, averaged": {"optimizer": optim.LAMB(0.01), "clip_norm": 1.0, "ema_decay": 0.9},
}


def trainer_of(coordinator: dr.Coordinator, model: str = "mlp", options: str = "momentum", **more: Any) -> dr.Trainer:
    x, make = MODELS[model]
    return coordinator.trainer(make(), (x, Y), **OPTIONS[options], batch_size=16, shards=4, seed=5, **more)


def digests(trainer: dr.Trainer) -> list[str]:
    average = trainer.average
    return [trainer.model.sha256(), *([average.sha256()] if average else [])]


def in_one_call(coordinator: dr.Coordinator, model: str, options: str) -> list[str]:
    x, make = MODELS[model]
    trained = make()
    result = coordinator.fit(trained, (x, Y), **OPTIONS[options], epochs=4, batch_size=16, shards=4, seed=5)
    return [trained.sha256(), *([result.average.sha256()] if result.average else [])]


OFTEN = [("mlp", "lamb, clipped, averaged"), ("cnn", "adamw, accumulated"), ("rnn", "momentum")]
RARELY = [(model, options) for model in MODELS for options in OPTIONS if (model, options) not in OFTEN]


@pytest.mark.parametrize(("model", "options"), [*OFTEN, *long(*RARELY)])
def test_calls_add_up_to_one(coordinator: dr.Coordinator, model: str, options: str) -> None:
    expected = in_one_call(coordinator, model, options)
    with trainer_of(coordinator, model, options) as trainer:
        for _ in range(4):
            trainer.fit(epochs=1)
        assert digests(trainer) == expected
        num_steps = trainer.step
        whole = trainer.state()
    with trainer_of(coordinator, model, options) as trainer:
        for steps in (3, 1, 4):
            trainer.fit(steps=steps)
        state = trainer.state()
        trainer.fit(steps=num_steps - 8)
        assert digests(trainer) == expected
    with trainer_of(coordinator, model, options, state=state) as resumed:
        assert resumed.step == 8
        resumed.fit(steps=num_steps - 8)
        assert digests(resumed) == expected
        assert resumed.state() == whole
        assert resumed.state().first_difference(state) == f"step: {num_steps} and 8"


def wide_trainer(coordinator: dr.Coordinator) -> dr.Trainer:
    """A run with gradients for several messages."""
    rule = optim.SGD(0.1, momentum=0.9)
    return coordinator.trainer(nn.mlp((200, 300), 3), (X, Y), rule, batch_size=16, shards=4, seed=5)


def test_the_size_of_messages_between_nodes_changes_no_bit_wherever_it_changes(coordinator: dr.Coordinator) -> None:
    with wide_trainer(coordinator) as plain, wide_trainer(coordinator) as cut:
        plain.fit(steps=9)
        for size in (1 << 16, 1 << 17, 1 << 30):
            cut.bucket_bytes = size
            cut.fit(steps=3)
        assert cut.state() == plain.state()


def test_to_try_what_is_fastest_leaves_a_run_its_bits(coordinator: dr.Coordinator) -> None:
    with wide_trainer(coordinator) as plain, wide_trainer(coordinator) as tuned:
        plain.fit(steps=6)
        tuned.fit(steps=3)
        tuning = dr.autotune(tuned, workers=False, shards=True, seconds=1e-3)
        assert tuning.workers == coordinator.workers
        assert tuning.shards in (tuning.workers, 2 * tuning.workers, 4 * tuning.workers)
        assert tuned.bucket_bytes == tuning.bucket_bytes
        tuned.fit(steps=3)
        assert tuned.state() == plain.state()


def test_a_state_tells_where_it_differs_from_another(coordinator: dr.Coordinator) -> None:
    with trainer_of(coordinator) as trainer:
        trainer.fit(steps=2)
        state, again = trainer.state(), trainer.state()
    assert state == again
    assert state.losses.shape == (2,)
    again.vectors[1, 6 * 20 + 3] += 1
    found = state.first_difference(again)
    assert found is not None
    assert found.startswith("optimizer state 0 of 0.bias[3]: ")
    assert state != again


def test_what_fixes_the_bits_must_be_the_same_where_a_run_goes_on(coordinator: dr.Coordinator) -> None:
    with trainer_of(coordinator) as trainer:
        trainer.fit(steps=2)
        state = trainer.state()
    for name, value in {"seed": 6, "batch_size": 8, "shards": 8, "shuffle": False, "clip_norm": 1.0}.items():
        arguments: dict[str, Any] = {"batch_size": 16, "shards": 4, "seed": 5, **OPTIONS["momentum"], name: value}
        was = {"seed": 5, "batch_size": 16, "shards": 4, "shuffle": True, "clip_norm": None}[name]
        with pytest.raises(dr.CheckpointError, match=f"{name} was {was} and is {value}"):
            coordinator.trainer(MODELS["mlp"][1](), (X, Y), state=state, **arguments)
    with pytest.raises(dr.CheckpointError, match=r"data\.sha256 was "):
        coordinator.trainer(
            MODELS["mlp"][1](), (X + 1, Y), batch_size=16, shards=4, seed=5, state=state, **OPTIONS["momentum"]
        )


class Raises:
    """Raises an error after the 7th step."""

    every = 7

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def on_steps(self, trainer: dr.Trainer) -> None:
        if self._error:
            error, self._error = self._error, None  # type: ignore[assignment]
            raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("enough"), StopIteration()], ids=repr)
def test_a_callback_that_ends_a_call_loses_nothing(coordinator: dr.Coordinator, error: BaseException) -> None:
    expected = in_one_call(coordinator, "mlp", "momentum")
    with trainer_of(coordinator) as trainer:
        if isinstance(error, StopIteration):
            assert len(trainer.fit(epochs=4, callbacks=[Raises(error)]).losses) == 7
        else:
            with pytest.raises(type(error)):
                trainer.fit(epochs=4, callbacks=[Raises(error)])
        assert trainer.step == 7
        left = trainer.model.sha256()
        trainer.fit(steps=4 * STEPS_PER_EPOCH - 7)
        assert trainer.model.sha256() != left
        assert digests(trainer) == expected


def test_a_call_that_is_given_up_in_the_middle_of_steps_can_be_gone_on_with(coordinator: dr.Coordinator) -> None:
    expected = in_one_call(coordinator, "mlp", "momentum")

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with trainer_of(coordinator) as trainer:
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(epochs=4, on_progress=stop)
        assert trainer.model.sha256() == trainer.state().params_sha256
        assert len(trainer.losses) == trainer.step
        trainer.fit(steps=4 * STEPS_PER_EPOCH - trainer.step)
        assert digests(trainer) == expected


def test_a_run_that_diverges_stands_before_that_step(coordinator: dr.Coordinator) -> None:
    trainer = coordinator.trainer(nn.mlp((8,), 3), (X, Y), optim.SGD(1e30), batch_size=16, shards=4)
    with trainer:
        for _ in range(2):
            with pytest.raises(dr.TrainingDiverged, match=r"in step 1 \(epoch 0\)"):
                trainer.fit(epochs=4)
            assert np.isfinite(trainer.model.values).all()
            assert len(trainer.losses) == trainer.step == 1


def test_validations_and_ends_of_epochs_are_told_of_between_steps(coordinator: dr.Coordinator) -> None:
    told: list[Any] = []

    class Listener:
        def on_epoch_end(self, trainer: dr.Trainer, summary: dr.EpochSummary) -> None:
            told.append((trainer.step, "epoch", summary.epoch))

        def on_validation(self, trainer: dr.Trainer, validated: dr.Validated) -> None:
            assert validated.loss == coordinator.evaluate(trainer.model, (X, Y)).loss
            told.append((trainer.step, "validation", validated.epoch))

        def on_fit_end(self, trainer: dr.Trainer) -> None:
            told.append((trainer.step, "end"))

    with trainer_of(coordinator) as trainer:
        result = trainer.fit(epochs=2, validation=(X, Y), validate_every=4, callbacks=[Listener()])
    assert told == [(4, "validation", 0), (5, "epoch", 0), (8, "validation", 1), (10, "epoch", 1), (10, "end")]
    assert [validated.step for validated in result.validations] == [4, 8]
    assert result.epochs == sorted(result.epochs, key=lambda epoch: epoch.epoch)
    model = MODELS["mlp"][1]()
    coordinator.fit(model, (X, Y), **OPTIONS["momentum"], epochs=2, batch_size=16, shards=4, seed=5)
    assert model.sha256() == trainer.model.sha256()


class Recorder:
    """Notes when it is called; one that stands before others is told of what is settled after them all."""

    def __init__(self, notes: list[Any], *, on_validation: BaseException | None = None) -> None:
        self._notes, self._error = notes, on_validation

    def on_validation(self, trainer: dr.Trainer, validated: dr.Validated) -> None:
        self._notes.append((trainer.step, "validation", trainer.is_settled))
        if self._error:
            raise self._error

    def on_settled(self, trainer: dr.Trainer) -> None:
        self._notes.append((trainer.step, "settled"))

    def on_fit_end(self, trainer: dr.Trainer) -> None:
        self._notes.append((trainer.step, "end", trainer.is_settled))


def test_what_is_settled_is_told_when_all_others_were_called(coordinator: dr.Coordinator) -> None:
    notes: list[Any] = []
    with trainer_of(coordinator) as trainer:
        trainer.fit(steps=7, validation=(X, Y), callbacks=[Recorder(notes), Recorder(notes)])
    told = (5, "validation", False)
    assert notes == [told, told, (5, "settled"), (5, "settled"), (7, "end", True), (7, "end", True)]


def test_a_call_that_ends_before_all_were_called_is_not_settled(coordinator: dr.Coordinator) -> None:
    notes: list[Any] = []
    callbacks = [Recorder(notes, on_validation=ZeroDivisionError()), Recorder(notes)]
    with trainer_of(coordinator) as trainer, pytest.raises(ZeroDivisionError):
        trainer.fit(epochs=1, validation=(X, Y), callbacks=callbacks)
    assert notes == [(5, "validation", False), (5, "end", False), (5, "end", False)]


def test_two_runs_take_turns(coordinator: dr.Coordinator) -> None:
    expected = in_one_call(coordinator, "mlp", "momentum")
    with trainer_of(coordinator) as one, trainer_of(coordinator) as other:
        for _ in range(4):
            one.fit(epochs=1)
            other.fit(epochs=1)
        assert digests(one) == digests(other) == expected
