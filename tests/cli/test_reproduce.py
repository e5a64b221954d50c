"""`dist-relu reproduce` and `dist-relu at`: a run again, to the bit, as its folder tells of it."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import dist_relu as dr
from tests.cli.test_cli import call, train

RUN = ("--model", "mlp:8", "--schedule", "constant", "--shards", "2", "--validation", "0.1")


@pytest.fixture
def folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Path]:
    """The two folders of a run of 3 epochs, of 21 steps each."""
    log, checkpoints = tmp_path / "log", tmp_path / "checkpoints"
    options = *RUN, "--epochs", "3", "--log-dir", str(log), "--checkpoint", str(checkpoints), "--every", "10steps"
    assert train(capsys, *options)[0] == 0
    return {"log": log, "checkpoints": checkpoints}


@pytest.mark.parametrize(
    ("name", "workers", "backend"), [("log", "2 workers", "local"), ("checkpoints", "1 worker", "serial")]
)
def test_a_run_is_equal_to_the_bit_on_other_workers(
    folders: dict[str, Path], name: str, workers: str, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output, _ = call(capsys, "reproduce", str(folders[name]), "--backend", backend, "--workers", workers[0])
    assert code == 0
    digest = dr.load_state(folders["log"] / "state.safetensors").params_sha256[:16]
    told = f"Equal to the bit: 63 steps, parameters {digest}, with {workers} ({backend}) as with 1 worker (serial)."
    assert output.splitlines()[-1] == told


@pytest.mark.parametrize("validation", [(), ("--validation", "0.1")])
def test_a_run_whose_rate_fell_is_equal_too(
    tmp_path: Path, validation: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    log, rates = tmp_path / "log", ("--schedule", "plateau:0.5,0", "--lr", "1.0")
    options = "--model", "mlp:8", "--shards", "2", *rates, *validation, "--epochs", "6", "--log-dir", str(log)
    assert train(capsys, *options)[0] == 0
    assert dr.load_state(log / "state.safetensors").lr_scale < 1
    code, output, _ = call(capsys, "reproduce", str(log), "--backend", "serial")
    assert (code, output.splitlines()[-1][:16]) == (0, "Equal to the bit")


def test_the_first_step_that_differs_is_named_with_what_else_does(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = folders["log"] / "state.safetensors"
    state = dr.load_state(path)
    loss = float(state.records["loss"][25])
    state.records["loss"][25:] = 0.25
    dr.save_state(state, path)
    command = "reproduce", str(folders["log"]), "--backend", "serial"
    code, output, _ = call(capsys, *command)
    assert code == 1
    told = f"Not the same bits: the loss of step 25 (epoch 2) was 0.25 and is {loss!r}."
    assert output.splitlines()[-1] == f"{told} Versions of programs and the processor are the same."
    change(folders["log"], versions={"python": "3.9", "numba": "0.1"}, cpu="Z80")
    code, output, _ = call(capsys, *command)
    assert code == 1
    assert f"{told} python was 3.9 and is 3." in output
    assert "; cpu was Z80 and is " in output


def change(folder: Path, **values: Any) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_any_step_can_be_had_from_the_nearest_checkpoint(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, other = tmp_path / "m.safetensors", tmp_path / "o.safetensors"
    for checkpoint in folders["checkpoints"].glob("step-*"):
        checkpoint.unlink()
    assert train(capsys, *RUN, "--epochs", "2", "--save", str(other), "--log-dir", str(tmp_path / "two"))[0] == 0
    state = dr.load_state(tmp_path / "two" / "state.safetensors")
    dr.save_state(state, folders["checkpoints"] / "step-000000042.safetensors")
    for step, since in ((42, "the checkpoint of step 42"), (50, "the checkpoint of step 42"), (41, "the beginning")):
        options = "--step", str(step), "--save", str(model), "--backend", "serial"
        code, output, errors = call(capsys, "at", str(folders["log"]), *options)
        assert (code, errors) == (0, "")
        digest = dr.load_model(model).sha256()
        assert f"Wrote {model}: the weights after step {step}, from {since} on. SHA-256 {digest[:16]}." in output
        assert (digest == dr.load_model(other).sha256()) == (step == 42)
    code, _, errors = call(capsys, "at", str(folders["log"]), "--step", "64", "--save", str(model))
    assert code == 2
    assert "--step 64: " in errors
    assert "tells of 63 steps" in errors


@pytest.mark.parametrize("name", ["log", "checkpoints"])
def test_what_is_written_of_a_run_is_as_the_schema_says(folders: dict[str, Path], name: str) -> None:
    schema = json.loads((resources.files(dr) / "run" / "run.schema.json").read_text())
    content = json.loads((folders[name] / "run.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(content, schema)
    assert content["results"]["steps"] == 63
    without_settings = {name: value for name, value in content.items() if name != "settings"}
    for wrong in ({**content, "format": 2}, without_settings, {**content, "another": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_what_is_no_run_or_another_one_is_refused(
    folders: dict[str, Path], tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    def refusal(folder: Path, *options: str) -> str:
        code, _, errors = call(capsys, "reproduce", str(folder), "--backend", "serial", *options)
        assert code == 2
        return errors

    x, y = rng.random((1797, 64)).astype("float32"), rng.integers(0, 10, 1797)
    np.savez(tmp_path / "other.npz", x=x, y=y)
    assert "It can't be run again, as data.sha256 was " in refusal(
        folders["log"], "--data", str(tmp_path / "other.npz")
    )
    assert "has no run.json; expected a folder that dist-relu train --log-dir or" in refusal(tmp_path)
    (folders["log"] / "state.safetensors").unlink()
    assert "does not hold the losses of a run" in refusal(folders["log"])
    change(folders["log"], options={"optimiser": "sgd"})
    assert "train has no option optimiser. Did you mean optimizer?" in refusal(folders["log"])
    change(folders["log"], format=2)
    assert "it has format 2, and this version of dist_relu reads 1: update it" in refusal(folders["log"])
