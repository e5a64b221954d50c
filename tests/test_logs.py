"""`dist-relu train --log-dir`: JSON lines, and event files that TensorBoard reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.logs import read_logs, scalars, write_logs
from tests.test_cli import train


@pytest.fixture(scope="module")
def steps() -> list[dr.WatchedStep]:
    digits = dr.data.load("digits")
    with dr.start(backend="serial") as coordinator:
        model = nn.mlp([20], 10)
        options = {"epochs": 2, "batch_size": 300}
        return coordinator.fit(model, digits.train, optim.SGD(), watch=dr.Watch(3), **options).watched  # type: ignore[arg-type]


def test_what_is_written_can_be_read(tmp_path: Path, steps: list[dr.WatchedStep]) -> None:
    write_logs(tmp_path / "new" / "folder", steps)
    assert read_logs(tmp_path / "new" / "folder") == steps
    assert read_logs(tmp_path / "new" / "folder" / "steps.jsonl") == steps


def test_tensorboard_reads_the_events(tmp_path: Path, steps: list[dr.WatchedStep]) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    write_logs(tmp_path, steps)
    (path,) = tmp_path.glob("events.out.tfevents.*")
    events = [Event.FromString(record) for record in RawEventFileLoader(str(path)).Load()]
    seen = {event.step: event.summary.value for event in events if event.summary.value}
    assert list(seen) == [step.step for step in steps]
    for step in steps:
        expected = dict(scalars(step))
        assert {value.tag: value.simple_value for value in seen[step.step]} == pytest.approx(expected, rel=1e-6)
        assert {"run/loss", "sparsity/1 ReLU", "gradient_norm/0.weight", "update_ratio/0.weight"} <= expected.keys()


def test_train_writes_logs_of_the_same_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--epochs", "2", "--shards", "2", "--save"
    plain, watched = tmp_path / "plain.safetensors", tmp_path / "watched.safetensors"
    assert train(capsys, *options, str(plain))[0] == 0
    logs = "--log-dir", str(tmp_path / "logs"), "--watch-every", "5"
    assert train(capsys, *options, str(watched), *logs)[0] == 0
    assert dr.load_model(plain).sha256() == dr.load_model(watched).sha256()
    steps = read_logs(tmp_path / "logs")
    assert [step.step for step in steps] == list(range(0, 46, 5))
    assert steps[-1].loss < steps[0].loss
    assert [layer.name for layer in steps[0].layers] == ["1 ReLU", "3 ReLU", "4 Dense"]


def test_a_run_that_diverges_leaves_what_was_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, errors = train(capsys, "--lr", "1e5", "--log-dir", str(tmp_path), "--watch-every", "1")
    assert code == 1
    assert "Lower the learning rate" in errors
    steps = read_logs(tmp_path)
    assert [step.step for step in steps] == list(range(len(steps)))
    assert steps[-1].params[0].gradient_norm > 1e3 * steps[0].params[0].gradient_norm


def test_real_targets_have_no_accuracy(tmp_path: Path, steps: list[dr.WatchedStep]) -> None:
    step = replace(steps[0], accuracy=None, lr=None)
    write_logs(tmp_path, [step])
    assert read_logs(tmp_path) == [step]
    assert not {"run/accuracy", "run/lr"} & dict(scalars(step)).keys()


def test_other_files_are_no_logs(tmp_path: Path) -> None:
    for content in ("nothing", "[]", "{}", '{"layers": [], "params": [], "what": 1}', "3"):
        (tmp_path / "steps.jsonl").write_text(content)
        with pytest.raises(ValueError, match="is no log of a run"):
            read_logs(tmp_path)
    (tmp_path / "steps.jsonl").write_text("")
    with pytest.raises(ValueError, match="holds no steps"):
        read_logs(tmp_path)
