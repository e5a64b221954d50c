"""MLflow and Weights & Biases keep what becomes of a run: in files of this machine, without network."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.integrations.mlflow import MLflowLog
from tests.programs import ROOT, run


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    yield mlflow
    mlflow.set_tracking_uri(None)


def trainer_on(coordinator: dr.Coordinator, digits: dr.data.Split, state: dr.RunState | None = None) -> dr.Trainer:
    return coordinator.trainer(
        nn.mlp((16,), 10), digits.train, optim.SGD(0.1), batch_size=64, shards=4, seed=3, state=state
    )


def test_mlflow_has_what_a_run_is_its_metrics_and_its_model(mlflow: Any, digits: dr.data.Split, tmp_path: Path) -> None:
    log = MLflowLog(experiment="digits", run_name="first")
    with dr.start(backend="serial") as coordinator, trainer_on(coordinator, digits) as trainer:
        result = trainer.fit(epochs=3, validation=digits.test, metrics="f1_macro", callbacks=[log])
    kept = mlflow.get_run(log.run_id)
    assert kept.info.status == "FINISHED"
    assert kept.info.run_name == "first"
    assert kept.data.params["optimizer"] == repr(optim.SGD(0.1))
    assert kept.data.params["num_params"] == str(trainer.model.num_params)
    history = mlflow.MlflowClient().get_metric_history(log.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [
        (23 * (epoch.epoch + 1), pytest.approx(epoch.loss)) for epoch in result.epochs
    ]
    assert kept.data.metrics["validation_accuracy"] == result.validations[-1].accuracy
    assert kept.data.metrics["validation_f1_macro"] == result.validations[-1].metrics["f1_macro"]
    path = mlflow.artifacts.download_artifacts(run_id=log.run_id, artifact_path="model.safetensors")
    assert dr.load_model(path).sha256() == trainer.model.sha256()


def test_a_run_that_is_tried_again_after_an_error_has_finished(mlflow: Any, digits: dr.data.Split) -> None:
    log = MLflowLog(log_model=False)
    with dr.start(backend="serial") as coordinator, trainer_on(coordinator, digits) as trainer:
        try:
            raise OSError
        except OSError:
            trainer.fit(epochs=1, callbacks=[log])
    assert mlflow.get_run(log.run_id).info.status == "FINISHED"


def test_a_run_that_is_resumed_goes_on_in_the_same_run_of_mlflow(mlflow: Any, digits: dr.data.Split) -> None:
    first, second = MLflowLog(every=10), MLflowLog(every=10)
    with dr.start(backend="serial") as coordinator:
        with trainer_on(coordinator, digits) as trainer:
            trainer.fit(steps=20, callbacks=[first])
            trainer.fit(steps=10, callbacks=[first])
            state = trainer.state()
        with trainer_on(coordinator, digits, state) as trainer:
            trainer.fit(steps=20, callbacks=[second])
    assert second.run_id == first.run_id
    history = mlflow.MlflowClient().get_metric_history(first.run_id, "loss")
    assert [point.step for point in history] == [10, 20, 30, 40, 50]


def test_a_run_of_mlflow_that_is_active_stays_so(mlflow: Any, digits: dr.data.Split) -> None:
    log = MLflowLog(log_model=False)
    with (
        dr.start(backend="serial") as coordinator,
        trainer_on(coordinator, digits) as trainer,
        mlflow.start_run() as active,
    ):
        trainer.fit(epochs=1, callbacks=[log])
        assert mlflow.active_run() is not None
    assert log.run_id == active.info.run_id


class CtrlC:
    every = 30

    def on_steps(self, trainer: dr.Trainer) -> None:
        raise KeyboardInterrupt


def test_mlflow_hears_that_a_run_was_interrupted(mlflow: Any, digits: dr.data.Split) -> None:
    log = MLflowLog()
    with (
        dr.start(backend="serial") as coordinator,
        trainer_on(coordinator, digits) as trainer,
        pytest.raises(KeyboardInterrupt),
    ):
        trainer.fit(epochs=3, callbacks=[log, CtrlC()])
    assert mlflow.get_run(log.run_id).info.status == "KILLED"


def test_what_mlflow_does_not_take_ends_no_training(
    mlflow: Any, digits: dr.data.Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("nobody listens")

    monkeypatch.setattr(mlflow, "log_metrics", fail)
    with (
        dr.start(backend="serial") as coordinator,
        trainer_on(coordinator, digits) as trainer,
        pytest.warns(dr.TrainingWarning, match="MLflow misses something of this run: ConnectionError") as told,
    ):
        trainer.fit(epochs=3, callbacks=[MLflowLog()])
    assert len(told) == 1
    assert trainer.epoch == 3


OFFLINE = """
import sys
import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.integrations.wandb import WandbLog

digits = dr.data.load("digits")
log = WandbLog(project="digits", run_name="first")
with dr.start(backend="serial") as coordinator:
    with coordinator.trainer(nn.mlp((16,), 10), digits.train, optim.SGD(0.1), batch_size=64, shards=4) as trainer:
        result = trainer.fit(epochs=2, validation=digits.test, callbacks=[log])
print(log.run_id, result.epochs[-1].loss, result.validations[-1].loss)
"""


def records_of(path: Path) -> Iterator[Any]:
    """What wandb has written: a log of LevelDB behind 7 bytes, with the records of its protocol."""
    from wandb.proto import wandb_internal_pb2

    content, place, parts = path.read_bytes(), 7, b""
    while place < len(content):
        if 32768 - place % 32768 < 7:  # no header fits into the rest of a block
            place += 32768 - place % 32768
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


@pytest.mark.long
def test_weights_and_biases_has_metrics_and_model_without_network(tmp_path: Path) -> None:
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}
    environment |= {"WANDB_DATA_DIR": str(tmp_path), "WANDB_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = run([sys.executable, "-c", OFFLINE], cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    run_id, loss, validation_loss = done.stdout.split()
    (path,) = tmp_path.glob(f"wandb/offline-run-*-{run_id}/run-{run_id}.wandb")
    records = [*records_of(path)]
    config = {item.key: json.loads(item.value_json) for record in records for item in record.config.update}
    assert config["batch_size"] == 64
    (*_, last) = (record.history for record in records if record.history.item)
    metrics = {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in last.item}
    assert metrics["_step"] == 46
    assert metrics["loss"] == pytest.approx(float(loss))
    assert metrics["validation_loss"] == float(validation_loss)
    artifacts = [record.artifact for record in records if record.artifact.name]
    assert [entry.path for artifact in artifacts for entry in artifact.manifest.contents] == ["model.safetensors"]
