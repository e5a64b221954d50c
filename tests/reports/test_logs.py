"""`dist-relu train --log-dir`: JSON lines, event files that TensorBoard reads, and the model."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from math import inf, isnan, nan
from pathlib import Path
from typing import Any

import pytest

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.core.files import Attempts
from dist_relu.reports.log_writer import LogWriter, scalars
from dist_relu.reports.logs import read_logs
from dist_relu.run.info import RunInfo
from tests.cases import long
from tests.cli.test_cli import train


@pytest.fixture(scope="module")
def fitted() -> dr.FitResult:
    digits = dr.data.load("digits")
    with dr.start(backend="serial") as coordinator:
        return coordinator.fit(nn.mlp([20], 10), digits.train, optim.SGD(), epochs=2, batch_size=300, watch=dr.Watch(3))


@pytest.fixture
def step(fitted: dr.FitResult) -> dr.WatchedStep:
    return fitted.watched[0]


def write(folder: Path, *items: dr.WatchedStep | dr.EpochSummary) -> None:
    with LogWriter(folder) as logs:
        for item in items:
            if isinstance(item, dr.WatchedStep):
                logs.step(item)
            else:
                logs.epoch(item)


def strict(line: str) -> Any:
    """What a parser makes of a line that knows nothing beyond the standard."""

    def fail(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(line, parse_constant=fail)


def test_what_is_written_can_be_read(tmp_path: Path, fitted: dr.FitResult) -> None:
    write(tmp_path / "new" / "folder", *fitted.watched, *fitted.epochs)
    logs = read_logs(tmp_path / "new" / "folder")
    assert logs.steps == fitted.watched
    assert logs.epochs == fitted.epochs
    assert logs.run is None


def test_a_run_overwrites_nothing(tmp_path: Path, fitted: dr.FitResult, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, *fitted.watched, *fitted.epochs)
    before = read_logs(tmp_path)
    message = "holds steps.jsonl, epochs.jsonl already. Choose another folder for this run."
    with pytest.raises(ValueError, match=message):
        LogWriter(tmp_path)
    code, _, errors = train(capsys, "--log-dir", str(tmp_path))
    assert code == 2
    assert message in errors
    assert read_logs(tmp_path) == before


def test_a_folder_that_can_not_be_is_told_before_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("x" * 256, "file/folder"):
        (tmp_path / "file").touch()
        code, _, errors = train(capsys, "--log-dir", str(tmp_path / name))
        assert code == 2
        assert f"--log-dir {tmp_path / name} can't be written: " in errors
        with pytest.raises(dr.WriteError, match="can't be written"):
            LogWriter(tmp_path / name)


def test_numbers_that_are_none_are_null_and_come_back_as_nan(tmp_path: Path, step: dr.WatchedStep) -> None:
    layer, param = step.layers[0], step.params[0]
    step = replace(
        step,
        loss=inf,
        layers=[replace(layer, mean=nan, variance=-inf, preactivations=None)],
        params=[replace(param, gradient_norm=inf, update_ratio=nan)],
    )
    write(tmp_path, step)
    line = strict((tmp_path / "steps.jsonl").read_text())
    assert line["loss"] is None
    assert line["layers"][0]["variance"] is None
    (read,) = read_logs(tmp_path).steps
    for number in (read.loss, read.layers[0].mean, read.layers[0].variance, read.params[0].gradient_norm):
        assert isnan(number)
    assert read.layers[0].preactivations is None
    assert read.params[0].update_ratio is None
    assert read.layers[0].sparsity == layer.sparsity


def test_a_line_that_is_still_being_written_is_not_read(tmp_path: Path, fitted: dr.FitResult) -> None:
    write(tmp_path, *fitted.watched)
    path = tmp_path / "steps.jsonl"
    path.write_text(path.read_text()[:-20])
    assert read_logs(tmp_path).steps == fitted.watched[:-1]


def test_tensorboard_reads_the_events(tmp_path: Path, fitted: dr.FitResult) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, *fitted.watched, *fitted.epochs)
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0, "histograms": 0}).Reload()
    for step in fitted.watched:
        for name, value in scalars(step):
            of_step = {event.step: event.value for event in events.Scalars(name)}
            assert of_step[step.step] == pytest.approx(value, rel=1e-6)
        counts = step.layers[0].preactivations
        assert counts is not None
        of_step = {event.step: event.histogram_value for event in events.Histograms("preactivations/1 ReLU")}
        bins = zip(of_step[step.step].bucket_limit, of_step[step.step].bucket, strict=True)
        expected = zip(dr.PREACTIVATION_EDGES[1:], counts, strict=True)
        assert [bin_ for bin_ in bins if bin_[1]] == [bin_ for bin_ in expected if bin_[1]]
    names = {
        "loss/train",
        "accuracy/train",
        "lr",
        "epoch/loss",
        "epoch/accuracy",
        "sparsity/1 ReLU",
        "gradient_norm/0.weight",
        "update_ratio/0.weight",
    }
    assert names <= set(events.Tags()["scalars"])
    assert events.Tags()["histograms"] == ["preactivations/1 ReLU"]
    dead = [len((epoch.dead or {})["1 ReLU"]) for epoch in fitted.epochs]
    assert [(event.step, event.value) for event in events.Scalars("dead/1 ReLU")] == [*enumerate(dead, 1)]


@pytest.mark.parametrize("broken", ["import", "third record"])
def test_a_broken_tensorboard_is_told_once_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.summary.writer.record_writer import RecordWriter

    plain, written = RecordWriter.write, []

    def write(writer: Any, record: bytes) -> None:
        written.append(record)
        if len(written) > 2:
            raise TypeError("Descriptors cannot be created directly.\nDowngrade the protobuf package.")
        plain(writer, record)

    if broken == "import":
        monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    else:
        monkeypatch.setattr(RecordWriter, "write", write)
    logs = tmp_path / "logs"
    code, _, errors = train(capsys, "--epochs", "2", "--log-dir", str(logs), "--watch-every", "1")
    assert code == 0
    assert errors.count("TensorBoard, which does not work here") == errors.count("\n") == 1
    assert len(read_logs(logs).epochs) == 2
    assert (logs / "model.safetensors").exists()


def test_train_writes_logs_of_the_same_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--epochs", "2", "--shards", "2", "--save"
    plain, watched = tmp_path / "plain.safetensors", tmp_path / "watched.safetensors"
    assert train(capsys, *options, str(plain))[0] == 0
    logs = "--log-dir", str(tmp_path / "logs"), "--watch-every", "5"
    assert train(capsys, *options, str(watched), *logs)[0] == 0
    digest = dr.load_model(plain).sha256()
    assert dr.load_model(watched).sha256() == digest
    assert dr.load_model(tmp_path / "logs" / "model.safetensors").sha256() == digest
    read = read_logs(tmp_path / "logs")
    assert [step.step for step in read.steps] == list(range(0, 46, 5))
    assert read.steps[-1].loss < read.steps[0].loss
    assert [layer.name for layer in read.steps[0].layers] == ["1 ReLU", "3 ReLU", "4 Dense"]
    assert [epoch.epoch for epoch in read.epochs] == [0, 1]
    assert read.epochs[0].dead is not None
    assert list(read.epochs[0].dead) == ["1 ReLU", "3 ReLU", "4 Dense"]


def test_run_json_tells_what_was_run_and_what_came_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    options = "--epochs", "1", "--model", "mlp:30", "--log-dir", str(tmp_path / "logs"), "--report", str(report)
    assert train(capsys, *options)[0] == 0
    strict((tmp_path / "logs" / "run.json").read_text())
    run = read_logs(tmp_path / "logs").run
    assert run is not None
    assert run.options.items() >= {"data": "digits", "model": "mlp:30", "epochs": 1, "batch-size": 64}.items()
    assert (run.backend, run.workers, run.nodes, run.shards) == ("serial", 1, 1, 1)
    assert "0 Dense" in run.summary
    assert run.layers.startswith("Sequential(Dense(units=30")
    assert run.optimizer.startswith("SGD(")
    assert run.results == json.loads(report.read_text())
    assert run.results.keys() >= {"test_loss", "test_accuracy", "seconds", "params_sha256"}


def test_a_run_that_diverges_leaves_what_was_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, errors = train(capsys, "--lr", "1e5", "--log-dir", str(tmp_path), "--watch-every", "1")
    assert code == 1
    assert "Lower the learning rate" in errors
    logs = read_logs(tmp_path)
    assert [step.step for step in logs.steps] == list(range(len(logs.steps)))
    assert logs.steps[-1].params[0].gradient_norm > 1e3 * logs.steps[0].params[0].gradient_norm
    assert logs.run is not None
    assert logs.run.results == {}
    assert "Lower the learning rate" in (logs.run.error or "")
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("backend", ["serial", *long("local")])
def test_a_run_can_be_read_while_it_goes_on_and_when_it_was_killed(tmp_path: Path, backend: str) -> None:
    options = "--backend", backend, "--epochs", "1000000", "--model", "mlp:8", "--watch-every", "20"
    command = [sys.executable, "-c", "from dist_relu.cli.main import main; main()", "train", *options]
    with subprocess.Popen([*command, "--log-dir", str(tmp_path), "--quiet"]) as process:
        try:
            while not (tmp_path / "epochs.jsonl").exists() or len(read_logs(tmp_path).epochs) < 3:
                assert process.poll() is None
                time.sleep(0.02)
        finally:
            os.kill(process.pid, signal.SIGKILL)
    logs = read_logs(tmp_path)
    assert [step.step for step in logs.steps] == list(range(0, 20 * len(logs.steps), 20))
    assert len(logs.steps) > 1
    assert [epoch.epoch for epoch in logs.epochs] == list(range(len(logs.epochs)))
    assert logs.run is not None
    assert logs.run.results == {}


Change = Callable[[Any], object]

DAMAGED: dict[str, tuple[str, Change | None, str]] = {
    "half of it": ("run.json", None, "run.json: .*char"),
    "options nested deep": (
        "run.json",
        lambda run: run["options"].update(a=json.loads("[" * 99 + "]" * 99)),
        "options",
    ),
    "a field of another type": ("run.json", lambda run: run.update(workers="2"), "run.json: workers is '2'"),
    "half a step": ("steps.jsonl", None, "steps.jsonl: line 1: .*char"),
    "counts that are none": (
        "steps.jsonl",
        lambda s: s["layers"][0].update(preactivations=[1, {}]),
        r"line 1: layers\[0\]",
    ),
    "counts of other bins": ("steps.jsonl", lambda s: s["layers"][0].update(preactivations=[1]), "other bins"),
    "numbers that are text": ("steps.jsonl", lambda s: s.update(loss="1.5"), "line 1: loss is '1.5'"),
    "a number that no float holds": ("steps.jsonl", lambda s: s.update(loss=10**400), "line 1: loss is 1000"),
    "a share above 1": ("steps.jsonl", lambda s: s["layers"][0].update(sparsity=1.5), "line 1: sparsity is 1.5"),
    "no units": ("steps.jsonl", lambda s: s["layers"][0].update(num_units=0), "line 1: .* has 0 units"),
    "units of a name for terminals": (
        "steps.jsonl",
        lambda s: s["layers"][0].update(name="\x1b[31m\n", num_units=0),
        r"line 1: \\x1b\[31m\\n has 0 units",
    ),
    "other layers": ("steps.jsonl", lambda s: s["layers"].pop(), "1 of 4 lines have other layers"),
    "unknown dead units": ("epochs.jsonl", lambda e: e.update(dead={"9 ReLU": []}), "1 of 2 lines have other layers"),
    "dead units that are none": ("epochs.jsonl", lambda e: e["dead"].update({"1 ReLU": 3}), r"dead\['1 ReLU'\] is 3"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_what_is_damaged_hides_nothing_that_is_whole(tmp_path: Path, fitted: dr.FitResult, what: str) -> None:
    name, change, told = DAMAGED[what]
    with LogWriter(tmp_path) as logs:
        logs.run(RunInfo({}, "", "", "", 1, 1, "serial", 1, 1, 1, "", "", "", {}))
        for step in fitted.watched:
            logs.step(step)
        for epoch in fitted.epochs:
            logs.epoch(epoch)
    whole = read_logs(tmp_path)
    assert whole.left_out == []
    text = (tmp_path / name).read_text()
    first, rest = (text, "") if name == "run.json" else text.split("\n", 1)
    content = json.loads(first)
    if change:
        change(content)
    (tmp_path / name).write_text((json.dumps(content) if change else first[: len(first) // 2]) + "\n" + rest)
    read = read_logs(tmp_path)
    assert (read.run is None) == (name == "run.json")
    assert read.steps == whole.steps[name == "steps.jsonl" :]
    assert read.epochs == whole.epochs[name == "epochs.jsonl" :]
    (left_out,) = read.left_out
    assert re.search(told, left_out)


def test_a_full_disk_costs_lines_but_no_run(
    tmp_path: Path, fitted: dr.FitResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    attempts = Attempts(told.append)
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with LogWriter(tmp_path, attempts) as logs:
        logs.step(fitted.watched[0])
        size = (tmp_path / "steps.jsonl").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, room[1]))  # SIGXFSZ is ignored by Python: EFBIG
        try:
            for step in fitted.watched[1:3]:
                logs.step(step)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, room)
        logs.step(fitted.watched[3])
    assert told == [f"{tmp_path}/steps.jsonl can't be written: File too large."]
    assert read_logs(tmp_path).steps == [fitted.watched[0], fitted.watched[3]]
    with pytest.raises(dr.WriteError, match=f"^Not written, or not whole: {tmp_path}/steps.jsonl.$"):
        attempts.check()


def test_a_folder_that_vanished_is_told_of_in_the_end(tmp_path: Path, fitted: dr.FitResult) -> None:
    told: list[str] = []
    with LogWriter(tmp_path / "gone", Attempts(told.append)) as logs:
        shutil.rmtree(tmp_path / "gone")
        logs.step(fitted.watched[0])
        logs.run(RunInfo({}, "", "", "", 1, 1, "serial", 1, 1, 1, "", "", "", {}))
    assert [message.split(" can't be written: ")[0].rpartition("/")[2] for message in told[:3]] == [
        "run.json",
        "steps.jsonl",
        "epochs.jsonl",
    ]


def test_a_broken_tensorboard_stops_no_run(
    tmp_path: Path, fitted: dr.FitResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    told: list[str] = []
    attempts = Attempts(told.append)
    with LogWriter(tmp_path, attempts) as logs:
        logs.step(fitted.watched[0])
    assert told[0].startswith("Nothing is written for TensorBoard, which does not work here: ")
    attempts.check()


def test_steps_that_are_passed_on_are_not_kept(digits: dr.data.Split) -> None:
    steps: list[dr.WatchedStep] = []
    epochs: list[dr.EpochSummary] = []
    with dr.start(backend="serial") as coordinator:
        watch = dr.Watch(2, on_step=steps.append, on_epoch=epochs.append)
        result = coordinator.fit(nn.mlp([8], 10), digits.train, optim.SGD(), epochs=2, batch_size=100, watch=watch)
    assert result.watched == []
    assert [step.step for step in steps] == list(range(0, len(result.losses), 2))
    assert epochs == result.epochs


def test_real_targets_have_no_accuracy(tmp_path: Path, step: dr.WatchedStep) -> None:
    step = replace(step, accuracy=None, lr=None)
    write(tmp_path, step)
    assert read_logs(tmp_path).steps == [step]
    assert not {"accuracy/train", "lr"} & dict(scalars(step)).keys()


def test_other_files_are_no_logs(tmp_path: Path) -> None:
    write(tmp_path)
    for content in ("nothing", "[]", "{}", '{"layers": [], "params": [], "what": 1}', "3"):
        for name in ("steps.jsonl", "epochs.jsonl"):
            before = (tmp_path / name).read_text()
            (tmp_path / name).write_text(content + "\n")
            with pytest.raises(ValueError, match="is no log of a run"):
                read_logs(tmp_path)
            (tmp_path / name).write_text(before)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="is no log of a run"):
        read_logs(tmp_path)
    with pytest.raises(ValueError, match=r"nowhere has no steps.jsonl; expected a folder that"):
        read_logs(tmp_path / "nowhere")
