"""`dist-relu what-if` trains with and without changes, and shows what they do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dist_relu import Coordinator, WorkerLost
from tests.cases import long
from tests.cli.test_cli import call, train

SHORT = ["--epochs", "1", "--model", "mlp:16", "--backend", "serial", "--shards", "4"]


def what_if(capsys: pytest.CaptureFixture[str], folder: Path, *options: str) -> tuple[int, str, str]:
    return call(capsys, "what-if", "--output", str(folder), "--seeds", "2", *SHORT, *options)


@pytest.mark.parametrize("change", long("--compress topk:0.01 --groups 2"))
def test_changes_are_shown_beside_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str) -> None:
    code, output, errors = what_if(capsys, tmp_path / "a", "--change", change, "--change", "--lr 1e30")
    assert (code, errors) == (0, "")
    assert "no change" in output
    assert "diverged" in output
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        *("experiment.json", "outcomes.jsonl", "what-if.json", "what-if.pdf", "what-if.png")
    ]
    runs = json.loads((tmp_path / "a" / "what-if.json").read_text())["runs"]
    assert sorted((run["change"], run["seed"]) for run in runs) == sorted(
        (name, seed) for name in ("no change", change, "--lr 1e30") for seed in (0, 1)
    )
    sizes = {run["change"]: run["megabytes_per_epoch"] for run in runs}
    assert sizes[change] < sizes["no change"] / 30
    options = [*SHORT, *change.split(), "--seed", "1", "--quiet", "--json", str(tmp_path / "report.json")]
    assert train(capsys, *options)[0] == 0
    (same,) = [run for run in runs if (run["change"], run["seed"]) == (change, 1)]
    assert same["params_sha256"] == json.loads((tmp_path / "report.json").read_text())["params_sha256"]


def test_sizes_of_messages_change_no_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, errors = what_if(capsys, tmp_path, "--change", "--bucket 1MiB")
    assert (code, errors) == (0, "")
    runs = json.loads((tmp_path / "what-if.json").read_text())["runs"]
    assert {run["change"] for run in runs} == {"no change", "--bucket 1MiB"}
    assert len({run["params_sha256"] for run in runs if run["seed"] == 0}) == 1


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (WorkerLost("worker 1 was killed by signal 9"), 1, "keeps 3 of 4 trainings, and the same command goes on.\n"),
        *long((KeyboardInterrupt(), 130, "interrupted; ")),
    ],
)
def test_trainings_outlast_what_ends_the_command_which_goes_on(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    told: str,
) -> None:
    trained: list[object] = []

    def evaluate(self: Coordinator, *arguments: Any, **options: Any) -> Any:
        trained.append(self)
        if len(trained) == 4:
            raise error
        return as_it_is(self, *arguments, **options)

    as_it_is = Coordinator.evaluate
    monkeypatch.setattr(Coordinator, "evaluate", evaluate)
    ended, output, errors = what_if(capsys, tmp_path, "--change", "--lr 0.01")
    assert ended == code
    assert "--lr 0.01" in output
    assert told in errors
    assert f"{tmp_path} keeps 3 of 4 trainings, and the same command goes on" in errors
    before = json.loads((tmp_path / "what-if.json").read_text())["runs"]
    assert [run["seed"] for run in before] == [0, 0]

    assert what_if(capsys, tmp_path, "--change", "--lr 0.01")[0] == 0
    assert len(trained) == 5
    runs = json.loads((tmp_path / "what-if.json").read_text())["runs"]
    assert [run["seed"] for run in runs] == [0, 0, 1, 1]
    assert runs[:2] == before


def test_the_folder_of_other_trainings_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert what_if(capsys, tmp_path, "--seeds", "1", "--change", "--clip-norm 1")[0] == 0
    assert what_if(capsys, tmp_path, "--seeds", "1", "--change", "--clip-norm 1", "--change", "--clip-norm 2")[0] == 0
    code, _, errors = what_if(capsys, tmp_path, "--change", "--clip-norm 1", "--batch-size", "32")
    assert code == 2
    assert f"{tmp_path} holds another experiment: no change.batch_size was 64, and is 32 now" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--change", "--compress gzip"], "--compress gzip: expected bf16"),
        (["--change", "--save model"], "--save has no effect on what training comes to. Leave it away."),
        (["--change", "--nonsense"], "No such option"),
        (["--change", "--lr '0.1"], "--change --lr '0.1: no closing quotation."),
        (["--change", " "], "--change '': expected options of dist-relu train."),
        (["--change", "--epochs 2"], "--epochs is the same for all trainings. Pass it outside of --change."),
        (["--change", "--data mnist"], "--data is the same for all trainings."),
        (["--change", "--workers 2"], "--workers is the same for all trainings."),
        (["--change", "--lr 0.01", "--workers", "auto"], "--workers auto: nothing is tried here"),
        (["--change", "--shards auto"], "Pass --shards N."),
        ([], "Missing option '--change'"),
    ],
)
def test_changes_that_are_none_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    code, _, errors = what_if(capsys, tmp_path, *options)
    assert code == 2
    assert message in errors
