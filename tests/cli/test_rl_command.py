"""`dist-relu rl`, as a user meets it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import dist_relu as dr
from dist_relu.nn import PolicyHead
from tests.cli.test_cli import call
from tests.programs import ROOT, mpirun, mpirun_on_nodes, run

TINY = "--steps", "2048", "--shards", "4"


def learn(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    return call(capsys, "rl", "--backend", "serial", *TINY, *options)


def test_rl_says_how_it_goes_and_what_it_reached(capsys: pytest.CaptureFixture[str]) -> None:
    code, output, errors = learn(capsys, "--horizon", "16")
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert len(lines) == 9
    assert lines[7].startswith("iteration 8/8  mean return ")
    assert lines[8].startswith("Mean return ")
    assert "over 100 fresh episodes" in lines[8]
    assert "from 2,048 steps" in lines[8]


@pytest.mark.parametrize("algorithm", ["ppo", "reinforce"])
def test_what_it_writes_can_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str], algorithm: str) -> None:
    model, report, policy = (tmp_path / name for name in ("model.safetensors", "report.json", "policy.py"))
    files = "--save", str(model), "--report", str(report), "--export", str(policy)
    assert learn(capsys, "--quiet", "--algorithm", algorithm, "--hidden", "8", *files) == (0, "", "")
    numbers = json.loads(report.read_text())
    loaded = dr.load_model(model)
    assert loaded.sha256() == numbers["params_sha256"]
    assert isinstance(loaded.layers[-1], PolicyHead)
    assert len(numbers["test_returns"]) == 100
    assert (numbers["steps"], numbers["shards"], numbers["algorithm"]) == (2048, 4, algorithm)
    spec = importlib.util.spec_from_file_location("policy", policy)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.act([0.0, 0.0, 0.1, 0.0]) in (0, 1)


def on_one_machine(*program: str) -> list[str]:
    return mpirun(3, *program)


def on_two_machines(*program: str) -> list[str]:
    return mpirun_on_nodes("aab", *program)


@pytest.mark.long
@pytest.mark.parametrize("launch", [on_one_machine, on_two_machines])
def test_the_script_does_the_same_under_mpirun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], launch: Callable[..., list[str]]
) -> None:
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    assert learn(capsys, "--quiet", "--report", str(here)) == (0, "", "")
    script = str(ROOT / "scripts" / "rl.py")
    done = run(launch(sys.executable, script, *TINY, "--quiet", "--report", str(there)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    first, second = (json.loads(path.read_text()) for path in (here, there))
    assert second["workers"] == 3
    for key in ("params_sha256", "test_returns", "mean_returns"):
        assert first[key] == second[key]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--env", "Nothing-v0"), "There is no environment 'Nothing-v0' here"),
        (("--env", "FrozenLake-v1"), "policies take states in a Box of one dimension"),
        (("--envs", "6"), "6 environments can't be shared evenly by 4 shards. Pass a multiple of 4."),
        (("--hidden", "8,x"), "--hidden 8,x: 'x' is no whole number"),
        (("--lr", "0"), "'--lr': 0 must be above 0"),
        (("--gamma", "nan"), "'--gamma': nan must be at least 0 and at most 1"),
        (("--algorithm", "reinforce", "--epochs", "2"), "--epochs and --minibatches are for --algorithm ppo"),
        (("--save", "/nowhere/model"), "the folder /nowhere does not exist"),
        (("--save", "model", "--export", "model"), "must name different files"),
    ],
)
def test_mistakes_are_told_in_one_line(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    code, output, errors = learn(capsys, *options)
    assert (code, output) == (2, "")
    assert errors.startswith("dist-relu: error: ")
    assert message in errors
    assert errors.count("\n") == 1


def test_gymnasium_that_is_missing_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    code, _, errors = learn(capsys)
    assert code == 2
    assert "pip install 'dist_relu[rl]'" in errors
