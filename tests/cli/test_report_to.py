"""`dist-relu train --report-to`: MLflow and Weights & Biases keep what becomes of a run, in the present folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cases import long
from tests.cli.test_cli import train
from tests.programs import ROOT, TIMEOUT_S, wait_for_line

RUN = ("--model", "mlp:8", "--epochs", "3")


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")


def runs() -> list[Any]:
    import mlflow

    return mlflow.MlflowClient().search_runs(["0"])  # type: ignore[no-any-return]


@pytest.mark.long
def test_a_run_is_kept_and_goes_on_in_the_same_one_when_it_is_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, config = str(tmp_path / "run"), str(tmp_path / "run.toml")
    options = *RUN, "--checkpoint", folder, "--every", "10steps"
    assert train(capsys, *options, "--report-to", "MLflow", "--max-time", "0.001", "--write-config", config)[0] == 0
    (first,) = runs()
    assert train(capsys, "--config", config, "--max-time", "1000", "--resume")[0] == 0
    (resumed,) = runs()
    assert resumed.info.run_id == first.info.run_id
    assert resumed.info.status == "FINISHED"
    assert resumed.data.params["batch_size"] == "64"
    assert resumed.data.metrics["epoch"] == 3


def test_a_library_that_is_missing_is_named_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    code, _, errors = train(capsys, "--data", "nowhere.npz", "--report-to", "wandb")
    assert code == 2
    assert "WandbLog needs wandb. Install it: pip install 'dist_relu[wandb]'." in errors


def test_a_service_that_can_not_be_had_ends_the_command_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nosuch://place")
    code, _, errors = train(capsys, *RUN, "--report-to", "mlflow")
    assert code == 1
    assert "error: MLflow has begun no run: UnsupportedModelRegistryStoreURIException: " in errors


def test_services_that_are_none_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, errors = train(capsys, "--report-to", "mlflow,tensorboard")
    assert code == 2
    assert "'tensorboard' is none of mlflow, wandb." in errors


@pytest.mark.parametrize(("number", "code"), long((signal.SIGINT, 130), (signal.SIGTERM, 143)))
def test_runs_that_a_signal_ends_are_ended_in_the_present_folder(
    number: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE"):
        monkeypatch.delenv(name)
    own = {"WANDB_DATA_DIR": str(tmp_path), "WANDB_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "dist_relu", "train", "--backend", "serial", "--epochs", "1000000"]
    with subprocess.Popen(
        [*command, "--report-to", "mlflow,wandb"],
        cwd=tmp_path,
        env={**os.environ, **own},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        wait_for_line(program, "epoch 1/")
        program.send_signal(number)
        _, errors = program.communicate(timeout=TIMEOUT_S)
    assert program.returncode == code, errors
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    (kept,) = runs()
    assert kept.info.status == "KILLED"
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    from tests.integrations.test_tracking import records_of

    (ended,) = (record.exit.exit_code for record in records_of(path) if record.HasField("exit"))
    assert ended == 130
