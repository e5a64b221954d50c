"""Runs of `dist-relu train` measure what they are asked for, are judged by it, and are compared by it later."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import pytest

import dist_relu as dr
from dist_relu.cli.main import main
from dist_relu.reports import read_logs
from tests.cli.test_cli import call, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run, and what it printed."""
    folder = tmp_path_factory.mktemp("runs")
    outputs = "--log-dir", str(folder / "log"), "--checkpoint", str(folder / "run"), "--json", str(folder / "r.json")
    judged = "--metrics", "roc_auc", "--monitor", "validation_f1_macro", "--patience", "1", "--min-delta", "0.9"
    options = "--model", "mlp:8", "--validation", "0.1", "--epochs", "9", "--lr", "0.01"
    with redirect_stdout(io.StringIO()) as printed:
        main(["train", "--backend", "serial", *options, *judged, *outputs])
    return folder, printed.getvalue()


def test_a_run_is_judged_by_what_it_measures(run: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    folder, output = run
    assert "as the f1_macro in validation was no better for 1 epoch" in output
    last = read_logs(folder / "log").validations[-1]
    assert f"roc_auc {last.metrics['roc_auc']:.4g}  f1_macro {last.metrics['f1_macro']:.4g}\n" in output
    measured = json.loads((folder / "r.json").read_text())["test_metrics"]
    assert list(measured) == ["roc_auc", "f1_macro"]
    assert f"Measured: roc_auc {measured['roc_auc']:.4g}, f1_macro {measured['f1_macro']:.4g}." in output
    assert call(capsys, "report", str(folder / "log"), "--output", str(folder / "page.html"))[0] == 0
    page = (folder / "page.html").read_text()
    assert "f1_macro on unseen samples" in page
    assert ", f1_macro from 0." in page


def test_another_rule_is_tried_by_what_was_measured(run: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = run[0]
    values = [validated.metrics["f1_macro"] for validated in read_logs(folder / "log").validations]
    code, output, _ = call(capsys, "replay", str(folder / "log"), "--monitor", "validation_f1_macro")
    assert code == 0
    assert f"the best validation_f1_macro {max(values):.6g}" in output
    code, _, errors = call(capsys, "replay", str(folder / "log"), "--monitor", "validation_f1")
    assert (code, "holds no validation_f1 of any validations" in errors) == (2, True)
    code, _, errors = call(capsys, "replay", str(folder / "log"), "--monitor", "f1")
    assert (code, 'expected "validation_loss", "validation_accuracy"' in errors) == (2, True)


def test_what_was_measured_is_measured_and_compared_again(
    run: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(run[0], folder)
    again = "reproduce", str(folder / "log"), "--backend", "serial"
    code, output, _ = call(capsys, *again)
    assert (code, "Equal to the bit" in output) == (0, True)
    path = folder / "log" / "state.safetensors"
    state = dr.load_state(path)
    was = state.validations[0]["metrics"]["f1_macro"]
    state.validations[0]["metrics"]["f1_macro"] = 0.25
    dr.save_state(state, path)
    code, output, _ = call(capsys, *again)
    assert code == 1
    step = state.validations[0]["step"]
    assert f"f1_macro in validation after step {step:,} was 0.25 and is {was!r}." in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics", "f2"], "--metrics f2: the targets are classes"),
        (["--metrics", "confusion"], "--metrics confusion: expected metrics that are a single number"),
        (["--monitor", "loss"], 'loss: expected "validation_loss"'),
        (["--monitor", "validation_accuracy"], "--monitor goes with --validation"),
        (["--monitor", "validation_r2", "--validation", "0.1"], "r2: the targets are classes"),
    ],
)
def test_what_can_not_be_measured_is_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, errors = train(capsys, "--model", "mlp:8", *options)
    assert (code, message in " ".join(errors.split())) == (2, True), errors
