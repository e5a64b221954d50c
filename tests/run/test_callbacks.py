"""Callbacks that the package brings: when they act, what they keep, and what they refuse."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.run.monitoring import Patience

X = np.random.default_rng(3).standard_normal((30, 4)).astype("float32")
Y = np.arange(30) % 3
STEPS_PER_EPOCH = 3


@pytest.fixture(scope="module")
def serial() -> Iterator[dr.Coordinator]:
    with dr.start(backend="serial") as coordinator:
        yield coordinator


def trainer_of(coordinator: dr.Coordinator, y: Any = Y, **more: Any) -> dr.Trainer:
    return coordinator.trainer(nn.mlp((8,), 3 if y is Y else 1), (X, y), optim.SGD(0.1), batch_size=10, **more)


def validated(step: int, loss: float, accuracy: float | None = None) -> dr.Validated:
    return dr.Validated(step=step, epoch=0, loss=loss, accuracy=accuracy)


@pytest.mark.parametrize(
    ("values", "min_delta", "maximise", "num_bad"),
    [
        ([3, 2, 1], 0, False, [0, 0, 0]),
        ([3, 3, 4], 0, False, [0, 1, 2]),
        ([3, 2.75, 2.5, 2.25], 0.5, False, [0, 1, 2, 0]),
        ([0.5, 0.25, 0.75], 0, True, [0, 1, 0]),
        ([nan, 3, nan, inf, 2], 0, False, [1, 0, 1, 2, 0]),
        ([-inf, 1, inf], 0, True, [1, 0, 1]),
    ],
)
def test_patience_counts_what_is_no_better(
    values: list[float], min_delta: float, maximise: bool, num_bad: list[int]
) -> None:
    rule = Patience(2, min_delta, maximise=maximise)
    counted = []
    for value in values:
        is_better = rule.take(value)
        counted.append(rule.num_bad)
        assert is_better == (rule.num_bad == 0)
        assert rule.is_over == (rule.num_bad >= 2)
    assert counted == num_bad


@pytest.mark.parametrize("monitor", ["validation_loss", "validation_accuracy", "loss", "accuracy"])
def test_every_number_of_validations_and_epochs_can_be_monitored(serial: dr.Coordinator, monitor: str) -> None:
    early = dr.EarlyStopping(monitor, patience=2, min_delta=0.9 if "accuracy" in monitor else 100)
    with trainer_of(serial) as trainer:
        result = trainer.fit(epochs=9, validation=(X, Y), callbacks=[early])
    assert early.stopped_step == trainer.step == 3 * STEPS_PER_EPOCH
    assert early.best_step == STEPS_PER_EPOCH
    first: Any = result.validations[0] if "validation" in monitor else result.epochs[0]
    assert early.best == (first.accuracy if "accuracy" in monitor else first.loss)


def test_the_best_parameters_are_restored_and_the_run_stays_where_it_is(serial: dr.Coordinator) -> None:
    early = dr.EarlyStopping(patience=2, min_delta=100, restore_best=True)
    with trainer_of(serial) as trainer, trainer_of(serial) as plain:
        plain.fit(epochs=1)
        trainer.fit(epochs=9, validation=(X, Y), callbacks=[early])
        assert trainer.model.sha256() == plain.model.sha256()
        plain.fit(epochs=2)
        assert trainer.state() == plain.state()
        trainer.fit(epochs=1)
        plain.fit(epochs=1)
        assert trainer.model.sha256() == plain.model.sha256()


def test_calls_of_one_epoch_stop_where_a_long_one_does(serial: dr.Coordinator) -> None:
    early = dr.EarlyStopping(patience=2, min_delta=100, restore_best=True)
    with trainer_of(serial) as trainer:
        for _ in range(5):
            trainer.fit(epochs=1, validation=(X, Y), callbacks=[early])
        assert trainer.step == early.stopped_step == 3 * STEPS_PER_EPOCH
        restored = trainer.model.sha256()
        trainer.fit(epochs=1, validation=(X, Y))
        assert trainer.step == 4 * STEPS_PER_EPOCH
        assert trainer.model.sha256() != restored


@pytest.mark.parametrize("cut", [2, 9])
def test_what_callbacks_remember_goes_through_a_file(serial: dr.Coordinator, tmp_path: Path, cut: int) -> None:
    """Also in a run that had stopped when it was written: it ends at once."""

    def fit(steps: int, state: dr.RunState | None = None) -> tuple[dr.RunState, str, str, float | None]:
        early, best = dr.EarlyStopping(patience=2, min_delta=100, restore_best=True), dr.BestModel()
        with trainer_of(serial, state=state) as trainer:
            trainer.fit(steps=steps, validation=(X, Y), validate_every=2, callbacks=[early, best])
            return trainer.state(), trainer.model.sha256(), best.model.sha256(), early.best

    whole = fit(30)
    assert whole[0].step == 6
    dr.save_state(fit(cut)[0], tmp_path / "state")
    assert fit(30, dr.load_state(tmp_path / "state")) == whole


def test_a_callback_begins_anew_with_another_run(serial: dr.Coordinator) -> None:
    early, best = dr.EarlyStopping(patience=1, min_delta=100), dr.BestModel()
    found = []
    for _ in range(2):
        with trainer_of(serial) as trainer:
            trainer.fit(epochs=9, validation=(X, Y), callbacks=[early, best])
            found.append((trainer.step, early.best, best.best, best.model.sha256()))
    assert found[0] == found[1]
    assert found[0][0] == 2 * STEPS_PER_EPOCH


def test_the_best_model_is_saved_whenever_it_is_better(serial: dr.Coordinator, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    best = dr.BestModel(path)
    with pytest.raises(ValueError, match="no best model yet"):
        _ = best.model
    with trainer_of(serial) as trainer:
        best.on_fit_begin(trainer, validates=True)
        kept = []
        for step, loss in ((1, 2.0), (2, 1.0), (3, 1.5)):
            trainer.fit(steps=1)
            best.on_validation(trainer, validated(step, loss))
            kept.append(dr.load_model(path).sha256())
        assert kept[0] != kept[1] == kept[2] == best.model.sha256()
        assert (best.best, best.best_step) == (1.0, 2)
        assert trainer.model.sha256() != kept[2]
    assert dr.load_model(path).predicts == "classes"


def test_a_best_model_that_cannot_be_saved_ends_no_training(serial: dr.Coordinator, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    best = dr.BestModel(folder / "best.safetensors", monitor="loss")

    class Moves:
        def on_steps(self, trainer: dr.Trainer) -> None:
            if trainer.step == 1:
                folder.rename(tmp_path / "moved")

    class MovesBack:
        def on_fit_end(self, trainer: dr.Trainer) -> None:
            (tmp_path / "moved").rename(folder)

    with trainer_of(serial) as trainer:
        with pytest.warns(dr.TrainingWarning, match=r"best\.safetensors can't be written"):
            trainer.fit(epochs=2, callbacks=[Moves(), MovesBack(), best])
        assert trainer.epoch == 2
    assert dr.load_model(folder / "best.safetensors").sha256() == best.model.sha256()
    with trainer_of(serial) as trainer, pytest.raises(dr.WriteError, match="nowhere"):
        trainer.fit(epochs=1, callbacks=[dr.BestModel(tmp_path / "nowhere" / "best", monitor="loss")])
    assert trainer.step == 0


def test_the_rate_is_reduced_after_more_than_patience_bad_values(serial: dr.Coordinator) -> None:
    plateau = dr.ReduceOnPlateau(factor=0.5, patience=2, min_scale=0.2)
    scales = []
    with trainer_of(serial) as trainer:
        plateau.on_fit_begin(trainer, validates=True)
        for step in range(10):
            plateau.on_validation(trainer, validated(step, 1.0 - step * 1e-5))
            scales.append(trainer.lr_scale)
        assert trainer.lr == 0.1 * trainer.lr_scale
    assert scales == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2]


def test_a_reduced_rate_is_watched_and_resumed(serial: dr.Coordinator) -> None:
    plateau = dr.ReduceOnPlateau("loss", factor=0.5, patience=0, min_delta=100)
    seen: list[dr.WatchedStep] = []
    with trainer_of(serial, watch=dr.Watch(every=1, on_step=seen.append)) as trainer:
        trainer.fit(epochs=3, callbacks=[plateau])
        state = trainer.state()
    assert [step.lr for step in seen[::STEPS_PER_EPOCH]] == [0.1, 0.1, 0.05]
    with trainer_of(serial, state=state) as resumed:
        assert resumed.lr == 0.025


@pytest.mark.parametrize(
    "kind", [dr.EarlyStopping, dr.BestModel, dr.ReduceOnPlateau], ids=["EarlyStopping", "BestModel", "ReduceOnPlateau"]
)
def test_what_a_call_does_not_have_is_refused_before_any_step(serial: dr.Coordinator, kind: Any) -> None:
    with trainer_of(serial) as trainer:
        with pytest.raises(ValueError, match=rf'{kind.__name__}\(monitor="validation_loss"\) needs validations'):
            trainer.fit(epochs=1, callbacks=[kind()])
        assert trainer.step == 0
    with trainer_of(serial, y=X[:, :1]) as trainer:
        with pytest.raises(ValueError, match=rf'{kind.__name__}\(monitor="accuracy"\): there is no accuracy'):
            trainer.fit(epochs=1, callbacks=[kind(monitor="accuracy")])
        assert trainer.step == 0


def rows(path: Path) -> list[list[str]]:
    header, *lines = path.read_text().splitlines()
    assert header == "epoch,step,loss,accuracy,validation_loss,validation_accuracy,lr,seconds"
    return [line.split(",") for line in lines]


def test_a_csv_log_has_a_line_for_every_epoch(serial: dr.Coordinator, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"

    class Reads:
        def on_epoch_end(self, trainer: dr.Trainer, summary: dr.EpochSummary) -> None:
            assert len(rows(path)) == trainer.epoch

    with trainer_of(serial) as trainer:
        result = trainer.fit(epochs=3, validation=(X, Y), validate_every=2, callbacks=[dr.CSVLog(path), Reads()])
    written = rows(path)
    assert [row[:2] for row in written] == [["0", "3"], ["1", "6"], ["2", "9"]]
    assert [[float(number) for number in row[2:4]] for row in written] == [[e.loss, e.accuracy] for e in result.epochs]
    last = {v.epoch if v.step % STEPS_PER_EPOCH else v.epoch - 1: v for v in result.validations}
    assert [float(row[4]) for row in written] == [last[epoch].loss for epoch in range(3)]
    assert [float(row[6]) for row in written] == [0.1] * 3


def test_a_csv_log_of_a_resumed_run_has_every_epoch_once(serial: dr.Coordinator, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    with trainer_of(serial) as trainer:
        trainer.fit(steps=4, callbacks=[dr.CSVLog(path)])
        state = trainer.state()
        trainer.fit(epochs=2, callbacks=[dr.CSVLog(path)])
    with path.open("a") as file:
        file.write("3,12,0.5")  # a line that a kill cut off
    with trainer_of(serial, state=state) as resumed:
        resumed.fit(epochs=3, callbacks=[dr.CSVLog(path)])
    assert [row[:2] for row in rows(path)] == [["0", "3"], ["1", "6"], ["2", "9"], ["3", "12"]]
    assert [row[4] for row in rows(path)] == [""] * 4
    with trainer_of(serial) as another:
        another.fit(epochs=1, callbacks=[dr.CSVLog(path)])
    assert [row[:2] for row in rows(path)] == [["0", "3"]]


def test_a_file_that_is_no_csv_log_is_left_as_it_is(serial: dr.Coordinator, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("mine\n")
    with trainer_of(serial) as trainer, pytest.raises(ValueError, match=r"mine\.csv is no log of CSVLog"):
        trainer.fit(epochs=1, callbacks=[dr.CSVLog(path)])
    assert path.read_text() == "mine\n"


def test_a_csv_log_that_cannot_be_written_ends_no_training(serial: dr.Coordinator, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    class Moves:
        def on_epoch_end(self, trainer: dr.Trainer, summary: dr.EpochSummary) -> None:
            if trainer.epoch == 1:
                folder.rename(tmp_path / "moved")
            if trainer.epoch == 3:
                (tmp_path / "moved").rename(folder)

    with trainer_of(serial) as trainer, pytest.warns(dr.TrainingWarning, match=r"log\.csv can't be written") as warned:
        trainer.fit(epochs=4, callbacks=[Moves(), dr.CSVLog(folder / "log.csv")])
    assert len(warned) == 1
    assert [row[0] for row in rows(folder / "log.csv")] == ["0", "1", "2", "3"]
