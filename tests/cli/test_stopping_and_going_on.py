"""A run of `dist-relu train` is stopped and goes on, to the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import dist_relu as dr
from tests.cli.test_cli import call, train

RUN = ("--model", "mlp:8", "--schedule", "constant")


def digest(path: Path) -> str:
    return dr.load_model(path).sha256()


def test_a_run_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, whole, resumed = tmp_path / "run", tmp_path / "whole.safetensors", tmp_path / "resumed.safetensors"
    run = *RUN, "--seed", "3", "--shards", "3"
    assert train(capsys, *run, "--epochs", "3", "--save", str(whole))[0] == 0
    assert train(capsys, *run, "--epochs", "1", "--checkpoint", str(folder))[0] == 0
    options = "--epochs", "3", "--checkpoint", str(folder), "--resume", "--save", str(resumed)
    code, output, errors = call(capsys, "train", "--backend", "local", "--workers", "2", *RUN, *options)
    assert (code, errors) == (0, "")
    assert output.splitlines()[0] == f"Going on from step 23 of the run in {folder}."
    assert "for 3 epochs, from step 23 on in " in output
    assert digest(resumed) == digest(whole)


def test_a_run_that_is_complete_says_so_and_is_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = *RUN, "--epochs", "2", "--checkpoint", str(tmp_path / "run"), "--resume", "--json", str(tmp_path / "r.json")
    code, output, _ = train(capsys, *run)
    assert code == 0
    assert output.startswith(f"There is no checkpoint in {tmp_path / 'run'} yet: it begins anew.")
    before = json.loads((tmp_path / "r.json").read_text())
    code, output, _ = train(capsys, *run)
    assert code == 0
    assert "Test accuracy " in output
    assert "Nothing was left to train: it has been for 2 epochs." in output
    after = json.loads((tmp_path / "r.json").read_text())
    for name in ("params_sha256", "epochs", "steps", "train_loss", "test_accuracy"):
        assert after[name] == before[name]


def test_options_that_would_make_another_run_are_refused_with_both_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "run")
    assert train(capsys, *RUN, "--epochs", "1", "--checkpoint", folder)[0] == 0
    others = "--seed", "1", "--batch-size", "32", "--lr", "0.2", "--clip-norm", "1", "--validation", "0.1"
    code, _, errors = train(capsys, *RUN, "--epochs", "2", "--checkpoint", folder, "--resume", *others)
    assert code == 2
    assert (
        "--lr was 0.1 and is 0.2, --validation was not given and is 0.1, --batch-size was 64 and is 32, "
        "--clip-norm was not given and is 1.0, --seed was 0 and is 1. It would be another run"
    ) in errors
    code, _, errors = train(capsys, "--schedule", "constant", "--checkpoint", folder, "--resume", "--model", "mlp:9")
    assert code == 2
    assert "--model was mlp:8 and is mlp:9." in errors
    code, _, errors = train(capsys, *RUN, "--checkpoint", folder)
    assert code == 2
    assert f"--checkpoint {folder} holds a run that is at step 23. Pass --resume to go on with it" in errors


def test_data_count_by_what_they_are(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y = rng.standard_normal((100, 4)).astype("float32"), rng.integers(0, 3, 100)
    for name, samples in (("here", x), ("moved", x), ("other", x + 1)):
        np.savez(tmp_path / f"{name}.npz", x=samples, y=y)
    run = *RUN, "--checkpoint", str(tmp_path / "run"), "--resume"
    assert train(capsys, *run, "--epochs", "1", "--data", str(tmp_path / "here.npz"))[0] == 0
    assert train(capsys, *run, "--epochs", "2", "--data", str(tmp_path / "moved.npz"))[0] == 0
    code, _, errors = train(capsys, *run, "--epochs", "3", "--data", str(tmp_path / "other.npz"))
    assert code == 2
    assert f"--data was {tmp_path / 'moved.npz'} and is {tmp_path / 'other.npz'}." in errors


def test_training_stops_when_validation_gets_no_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, model = tmp_path / "r.json", tmp_path / "m.safetensors"
    run = *RUN, "--epochs", "9", "--validation", "0.1", "--patience", "2", "--min-delta", "100", "--json", str(report)
    code, output, _ = train(capsys, *run, "--save", str(model))
    assert code == 0
    assert "1,294 samples of 64 numbers" in output
    assert output.count("validation  loss ") == 3
    assert (
        "Stopped after 3 epochs, as the loss in validation was no better for 2 epochs; the weights are those after 1 "
        "epoch."
    ) in output
    numbers = json.loads(report.read_text())
    assert (numbers["epochs"], numbers["steps"]) == (3, 3 * 21)
    assert train(capsys, *RUN, "--epochs", "1", "--validation", "0.1", "--save", str(tmp_path / "1.st"))[0] == 0
    assert digest(model) == digest(tmp_path / "1.st")


@pytest.mark.parametrize("held_out", [(), ("--validation", "0.5")])
def test_a_data_sets_own_samples_to_validate_with_are_used_unless_others_are_held_out(
    held_out: tuple[str, ...], tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rate falls by their losses, too, rather than by those of training."""
    x, y = rng.random((90, 4), np.float32), np.arange(90) % 2
    np.savez(
        tmp_path / "d.npz",
        train_images=x[:40],
        train_labels=y[:40],
        val_images=x[40:],
        val_labels=y[40:],
        test_images=x,
        test_labels=y,
    )
    rule = "--patience", "3", "--min-delta", "100", "--schedule", "plateau:0.5,0", *held_out
    log = "--checkpoint", str(tmp_path / "run")
    code, output, _ = train(capsys, "--data", str(tmp_path / "d.npz"), "--model", "mlp:4", "--epochs", "9", *rule, *log)
    assert code == 0
    assert f"{20 if held_out else 40} samples of 4 numbers" in output
    assert output.count("validation  loss ") == 4
    state = dr.newest_state(tmp_path / "run")
    assert state is not None
    assert state.callbacks["0.ReduceOnPlateau"]["best"] in [one["loss"] for one in state.validations]


def test_a_run_ends_when_its_time_is_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = train(capsys, *RUN, "--epochs", "1000000", "--max-time", "0.01s")
    assert code == 0
    assert ", as --max-time is over.\n" in output


def test_the_logs_of_a_run_go_on_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = *RUN, "--checkpoint", str(tmp_path / "run"), "--resume", "--watch-every", "1"
    logs = tmp_path / "logs"
    for epochs in ("1", "2"):
        assert train(capsys, *run, "--epochs", epochs, "--log-dir", str(logs))[0] == 0
    read = dr.reports.read_logs(logs)
    assert [step.step for step in read.steps] == list(range(46))
    assert [epoch.epoch for epoch in read.epochs] == [0, 1]
    assert read.run is not None
    assert read.run.results["steps"] == 46
    assert train(capsys, *RUN, "--seed", "1", "--epochs", "1", "--log-dir", str(tmp_path / "other"))[0] == 0
    code, _, errors = train(capsys, *run, "--epochs", "3", "--log-dir", str(tmp_path / "other"))
    assert code == 2
    assert "holds the logs of another run" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resume"], "--resume goes with --checkpoint"),
        (["--every", "60s"], "--every goes with --checkpoint"),
        (["--keep", "2"], "--keep goes with --checkpoint"),
        (["--patience", "3"], "--patience goes with --validation"),
        (["--min-delta", "0.1"], "--min-delta goes with --patience"),
        (["--validation", "1"], "'--validation': 1"),
        (
            ["--every", "often", "--checkpoint", "a"],
            "'--every': expected a number of steps, or something like 500steps",
        ),
        (["--max-time", "500steps"], "'--max-time': 500steps: expected a time, such as 90s, 5min or 2h."),
        (["--checkpoint", "a", "--log-dir", "a"], "--log-dir and --checkpoint name the same folder"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, errors = train(capsys, *options)
    assert code == 2
    assert message in errors
