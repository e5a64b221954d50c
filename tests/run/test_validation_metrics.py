"""Validations measure what they are asked for, and runs are judged by it."""

from __future__ import annotations

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
