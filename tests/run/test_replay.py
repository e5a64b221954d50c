"""What a run holds tells where another rule would have stopped it, as that rule does in a run of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.reports.log_writer import LogWriter
from dist_relu.reports.logs import read_logs
from dist_relu.run.replay import Judged, epochs_of, judged_by, replay
from tests.cli.test_cli import call

RNG = np.random.default_rng(8)
X = RNG.standard_normal((90, 6)).astype("float32")
Y = RNG.integers(0, 3, 90)
TRAIN, HELD_BACK = (X[:70], Y[:70]), (X[70:], Y[70:])
NUM_EPOCHS = 12

RULES: list[tuple[str, int, float]] = [
    ("validation_loss", 1, 0.0),
    ("validation_loss", 4, 0.01),
    ("validation_accuracy", 3, 0.0),
    ("loss", 2, 0.1),
    ("accuracy", 1, 0.05),
]


def fit(coordinator: dr.Coordinator, callbacks: list[Any], watch: dr.Watch | None = None) -> dr.RunState:
    optimizer = optim.SGD(0.2, momentum=0.9)
    with coordinator.trainer(nn.mlp((20,), 3), TRAIN, optimizer, batch_size=16, seed=5, watch=watch) as trainer:
        trainer.fit(epochs=NUM_EPOCHS, validation=HELD_BACK, validate_every=2, callbacks=callbacks)
        return trainer.state()


@pytest.fixture(scope="module")
def serial() -> Iterator[dr.Coordinator]:
    with dr.start(backend="serial") as coordinator:
        yield coordinator


@pytest.fixture(scope="module")
def folder(serial: dr.Coordinator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log folder of a run that nothing stopped; beside it its checkpoints, and the last of them alone."""
    folder = tmp_path_factory.mktemp("runs")
    checkpoint = dr.Checkpoint(folder / "checkpoints", every="5epochs")
    with LogWriter(folder / "run") as logs:
        state = fit(serial, [logs, checkpoint], dr.Watch(10, logs.step, logs.epoch))
    dr.save_state(state, folder / "last.safetensors")
    return folder / "run"


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_replaying_agrees_with_a_run_of_that_rule(
    serial: dr.Coordinator, folder: Path, rule: tuple[str, int, float]
) -> None:
    monitor, patience, min_delta = rule
    early = dr.EarlyStopping(monitor, patience, min_delta)
    ended = fit(serial, [early])
    assert early.stopped_step == ended.step < NUM_EPOCHS * ended.steps_per_epoch
    logs, state = read_logs(folder), dr.load_state(folder.parent / "last.safetensors")
    from_state = [dr.Validated(**validated) for validated in state.validations], epochs_of(state)
    for validations, epochs in ((logs.validations, logs.epochs), from_state):
        found = replay(judged_by(monitor, validations, epochs), monitor, patience, min_delta)
        assert found.stopped is not None
        assert found.best is not None
        assert found.best.value == early.best
        if monitor.startswith("validation"):
            assert (found.stopped.step, found.best.step) == (early.stopped_step, early.best_step)
        else:
            assert found.stopped.epoch * ended.steps_per_epoch == early.stopped_step
            assert found.best.epoch * ended.steps_per_epoch == early.best_step


def test_epochs_of_a_state_are_those_of_its_log(folder: Path) -> None:
    assert epochs_of(dr.load_state(folder.parent / "last.safetensors")) == [
        dr.EpochSummary(epoch=epoch.epoch, loss=epoch.loss, accuracy=epoch.accuracy, seconds=epoch.seconds)
        for epoch in read_logs(folder).epochs
    ]


def judged(*values: float) -> list[Judged]:
    return [Judged(epoch=number, step=10 * number, value=value) for number, value in enumerate(values, 1)]


def test_a_rule_that_stops_nowhere_tells_the_best_of_all() -> None:
    found = replay(judged(3, 1, 2), "loss", patience=2)
    assert found.stopped is None
    assert found.best == found.best_of_all == Judged(epoch=2, step=20, value=1)
    assert replay(judged(nan, nan), "loss", patience=3).best is None


@pytest.mark.parametrize("of", ["run", "last.safetensors", "checkpoints"])
def test_the_command_says_where_and_with_what(folder: Path, of: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(folder.parent / of)
    code, output, errors = call(capsys, "replay", path, "--patience", "2", "--min-delta", "0.001")
    assert (code, errors) == (0, "")
    found = replay(judged_by("validation_loss", read_logs(folder).validations, []), "validation_loss", 2, 0.001)
    assert found.stopped is not None
    assert found.best is not None
    assert output.startswith(
        f"--patience 2 --min-delta 0.001 would have stopped after step {found.stopped.step} (epoch "
        f"{found.stopped.epoch}), with the best validation_loss {found.best.value:.6g} after step {found.best.step} "
    )
    output = call(capsys, "replay", path, "--patience", "99", "--monitor", "accuracy")[1]
    assert output.startswith(
        "--patience 99 --min-delta 0 would not have stopped this run of 12 epochs; it has the best"
    )


def test_the_command_agrees_with_runs_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "train", "--model", "mlp:16", "--validation", "0.2", "--lr", "0.5", "--backend", "serial", "--quiet"
    rule = "--patience", "2", "--min-delta", "0.05"
    assert call(capsys, *options, "--epochs", "12", "--log-dir", str(tmp_path / "run"))[0] == 0
    assert call(capsys, "replay", str(tmp_path / "run"), *rule, "--json", str(tmp_path / "replay.json"))[0] == 0
    assert call(capsys, *options, "--epochs", "12", *rule, "--json", str(tmp_path / "train.json"))[0] == 0
    found, trained = (json.loads((tmp_path / name).read_text()) for name in ("replay.json", "train.json"))
    assert found["stopped"]["step"] == trained["steps"]
    assert found["num_judged"] == 12 > found["stopped"]["epoch"]


def test_a_run_without_validations_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LogWriter(tmp_path / "run"):
        pass
    code, _, errors = call(capsys, "replay", str(tmp_path / "run"))
    assert code == 2
    assert "holds no validation_loss of any validations." in errors
    code, _, errors = call(capsys, "replay", str(tmp_path))
    assert code == 2
    assert "has no steps.jsonl; expected a folder of train --log-dir, or checkpoints" in errors
