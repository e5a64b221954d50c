"""A run that was saved somewhere goes on here from its file, and elsewhere from there, to the same bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import optim
from tests.cases import long
from tests.conformance.test_trainer import MODELS, Y, digests

OPTIONS: dict[str, dict[str, Any]] = {
    "momentum": {"optimizer": optim.SGD(optim.Cosine(0.1, 4), momentum=0.9)},
    "adamw": {"optimizer": optim.AdamW(0.01)},
    "lamb": {"optimizer": optim.LAMB(0.01), "clip_norm": 1.0, "ema_decay": 0.9, "accumulate": 2},
    "stale": {"optimizer": optim.Adam(0.01), "clip_norm": 1.0, "ema_decay": 0.9, "stale_gradients": True},
}
OFTEN = [("mlp", "lamb"), ("cnn", "momentum"), ("rnn", "adamw"), ("mlp", "stale")]
RARELY = [(model, options) for model in MODELS for options in OPTIONS if (model, options) not in OFTEN]


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[dr.Coordinator]:
    with dr.start(backend="serial") as started:
        yield started


def trainer_of(place: dr.Coordinator, model: str, options: str, state: dr.RunState | None = None) -> dr.Trainer:
    x, make = MODELS[model]
    return place.trainer(make(), (x, Y), **OPTIONS[options], batch_size=16, shards=4, seed=5, state=state)


@pytest.mark.parametrize(("model", "options"), [*OFTEN, *long(*RARELY)])
def test_a_run_goes_on_here_and_elsewhere_from_files(
    coordinator: dr.Coordinator, elsewhere: dr.Coordinator, tmp_path: Path, model: str, options: str
) -> None:
    with trainer_of(elsewhere, model, options) as trainer:
        trainer.fit(epochs=4)
        expected, last = digests(trainer), trainer.step
    stops = np.random.default_rng([*model.encode(), *options.encode()]).choice(range(1, last), 3, replace=False)
    state = None
    for place, stop in zip([elsewhere, coordinator, elsewhere, coordinator], [*sorted(stops), last], strict=True):
        with trainer_of(place, model, options, state) as trainer:
            trainer.fit(steps=int(stop) - trainer.step)
            dr.save_state(trainer.state(), tmp_path / "state")
            found = digests(trainer)
        state = dr.load_state(tmp_path / "state")
    assert found == expected


def test_checkpoints_are_written_here_and_gone_on_with_elsewhere(
    coordinator: dr.Coordinator, elsewhere: dr.Coordinator, tmp_path: Path
) -> None:
    with trainer_of(elsewhere, "mlp", "momentum") as trainer:
        trainer.fit(steps=15)
        expected = trainer.state()
    with trainer_of(coordinator, "mlp", "momentum") as trainer:
        trainer.fit(steps=11, callbacks=[dr.Checkpoint(tmp_path, every=3)])
    newest = dr.newest_state(tmp_path)
    assert newest is not None
    with trainer_of(elsewhere, "mlp", "momentum", newest) as trainer:
        trainer.fit(steps=4)
        assert trainer.state().first_difference(expected) is None


def test_a_state_that_only_claims_to_be_of_a_run_is_refused(elsewhere: dr.Coordinator) -> None:
    """Its settings are those of the run, its vectors are not."""
    with trainer_of(elsewhere, "rnn", "momentum") as trainer:
        state = trainer.state()
    state = dataclasses.replace(state, vectors=state.vectors[:, :5])
    with pytest.raises(dr.CheckpointError, match=r"The state has vectors of shape \(2, 5\); this run needs \(2, "):
        trainer_of(elsewhere, "rnn", "momentum", state)
