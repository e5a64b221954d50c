"""Validations measure what they are asked for, and runs are judged by it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.reports import LogWriter, read_logs


@pytest.fixture(scope="module")
def serial() -> Iterator[dr.Coordinator]:
    with dr.start(backend="serial") as coordinator:
        yield coordinator


@pytest.fixture
def trainer(serial: dr.Coordinator, digits: dr.data.Split) -> Iterator[dr.Trainer]:
    data = dr.Dataset(digits.train.x[:300], digits.train.y[:300])
    with serial.trainer(nn.mlp([8], 10), data, optim.SGD(0.1), batch_size=50) as trainer:
        yield trainer


def test_validations_measure_what_is_asked_for(trainer: dr.Trainer, digits: dr.data.Split) -> None:
    result = trainer.fit(epochs=2, validation=digits.test, metrics=["f1_macro", "top_3"])
    last = result.validations[-1]
    predicted = trainer.model.forward(digits.test.x.astype(np.float32)).argmax(axis=1)
    assert last.metrics["f1_macro"] == f1_score(digits.test.y, predicted, average="macro")
    assert list(last.metrics) == ["f1_macro", "top_3"]


@pytest.mark.parametrize(("monitor", "better"), [("validation_f1_macro", max), ("validation_log_loss", min)])
def test_the_best_model_is_the_best_by_a_metric(
    trainer: dr.Trainer, digits: dr.data.Split, monitor: str, better: object
) -> None:
    best, metric = dr.BestModel(monitor=monitor), monitor.removeprefix("validation_")
    result = trainer.fit(epochs=4, validation=digits.test, metrics=metric, callbacks=[best])
    values = [validated.metrics[metric] for validated in result.validations]
    assert best.best == (max(values) if better is max else min(values))


def test_the_best_state_by_a_metric_is_kept(trainer: dr.Trainer, digits: dr.data.Split, tmp_path: Path) -> None:
    checkpoint = dr.Checkpoint(tmp_path, keep=1, best="validation_log_loss")
    with pytest.raises(ValueError, match=r'Checkpoint\(best="validation_log_loss"\) needs validations that measure it'):
        trainer.fit(epochs=1, validation=digits.test, callbacks=[checkpoint])
    trainer.lr_scale = 100.0  # the first epochs are the best ones
    trainer.fit(epochs=4, validation=digits.test, metrics="log_loss", callbacks=[checkpoint])
    best = min(trainer.validations, key=lambda validated: validated.metrics["log_loss"]).step
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        f"step-{step:09}.safetensors" for step in sorted({best, trainer.step})
    ]


def test_a_csv_log_has_columns_for_what_was_measured(
    trainer: dr.Trainer, digits: dr.data.Split, tmp_path: Path
) -> None:
    """Also where another call measures something else."""
    log = dr.CSVLog(tmp_path / "log.csv")
    first, second, third = (
        trainer.fit(epochs=1, validation=validation, metrics=metrics, callbacks=[log])
        for validation, metrics in [(digits.test, ["f1_macro"]), (digits.test, ["top_3", "f1_macro"]), (None, [])]
    )
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[7:] == ["seconds", "validation_f1_macro", "validation_top_3"]
    measured = [[row["validation_f1_macro"], row["validation_top_3"]] for row in rows]
    of_first, of_second = first.validations[0].metrics, second.validations[0].metrics
    assert measured == [
        [f"{of_first['f1_macro']}", ""],
        [f"{of_second['f1_macro']}", f"{of_second['top_3']}"],
        ["", ""],
    ]
    assert len(third.epochs) == 1


def test_progress_and_tables_tell_what_was_measured(trainer: dr.Trainer, digits: dr.data.Split) -> None:
    stream = io.StringIO()
    live = dr.LiveProgress(stream)
    result = trainer.fit(epochs=1, validation=digits.test, metrics="top_3", callbacks=[live], on_progress=live)
    value = f"{result.validations[0].metrics['top_3']:.4g}"
    assert f"top_3 {value}" in stream.getvalue()
    for table in (result, trainer, result.validations[0]):
        assert value in table._repr_html_()


def test_what_was_measured_is_in_states_and_logs(trainer: dr.Trainer, digits: dr.data.Split, tmp_path: Path) -> None:
    with LogWriter(tmp_path / "log") as logs:
        few = dr.Dataset(digits.test.x[:5], digits.test.y[:5])  # too few classes for an area
        trainer.fit(epochs=1, validation=few, metrics=["roc_auc", "f1_micro"], callbacks=[logs])
    (validated,) = trainer.validations
    assert math.isnan(validated.metrics["roc_auc"])
    (logged,) = read_logs(tmp_path / "log").validations
    np.testing.assert_equal(logged.metrics, validated.metrics)
    state = trainer.state()
    dr.save_state(state, tmp_path / "state")
    np.testing.assert_equal(dr.load_state(tmp_path / "state").validations, state.validations)


def test_what_can_not_be_measured_is_refused(trainer: dr.Trainer, digits: dr.data.Split) -> None:
    with pytest.raises(ValueError, match='monitor="validation_f1_macro"\\) needs validations that measure it'):
        trainer.fit(epochs=1, validation=digits.test, callbacks=[dr.EarlyStopping("validation_f1_macro")])
    with pytest.raises(ValueError, match="validations measure single numbers"):
        trainer.fit(epochs=1, validation=digits.test, metrics="confusion")
    with pytest.raises(ValueError, match="and this call has none: pass validation"):
        trainer.fit(epochs=1, metrics="f1_macro")
    with pytest.raises(ValueError, match="metrics='r2': the targets are classes"):
        trainer.fit(epochs=1, validation=digits.test, metrics="r2")
    with pytest.raises(ValueError, match='"validation_" and a metric that is a number'):
        dr.EarlyStopping("validation_f3")
    assert trainer.step == 0
