"""The command line on a terminal, whatever its width; in pipes; and when it is interrupted."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

import dist_relu as dr
from tests.cases import long
from tests.programs import ROOT, TIMEOUT_S, TRAIN, run, wait_for_line

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def on_terminal(columns: int, command: list[str], term: str = "xterm") -> tuple[int, str]:
    """Run a program on a terminal of so many columns; returns its exit code and what it wrote, controls and all."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "NO_COLOR"}}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**environment, "TERM": term}
    ) as program:
        os.close(theirs)
        written = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the terminal is closed
                break
            written += part
        os.close(ours)
    return program.returncode, written.decode()


def lines_of(written: str) -> list[str]:
    """The lines that a terminal has shown, at whatever time."""
    return [line.rstrip() for line in re.split(r"[\r\n]+", _CONTROL.sub("", written)) if line.strip()]


@pytest.mark.parametrize("columns", [30, *long(50, 80)])
def test_a_terminal_keeps_epochs_and_cuts_no_number(columns: int) -> None:
    code, written = on_terminal(columns, [*TRAIN, "--backend", "serial", "--epochs", "3", "--model", "mlp:8"])
    lines = lines_of(written)
    assert code == 0
    for epoch in (1, 2, 3):
        assert any(re.match(rf"epoch {epoch}/3  loss \d\.\d{{4}}", line) for line in lines)
    for line in lines:
        assert len(line) <= columns
        assert "…" not in line
        for step in re.findall(r"step (\S+)", line):
            assert re.fullmatch(r"\d+/23", step)
    assert " ".join(lines).count("for 3 epochs in") == 1  # it is wrapped between words


@pytest.mark.long
def test_a_terminal_that_moves_no_cursor_gets_lines() -> None:
    code, written = on_terminal(80, [*TRAIN, "--backend", "serial", "--epochs", "2", "--model", "mlp:8"], "dumb")
    assert code == 0
    assert "\x1b" not in written
    assert [line[:9] for line in lines_of(written) if line.startswith("epoch ")] == ["epoch 1/2", "epoch 2/2"]


@pytest.mark.parametrize(
    ("backend", "number", "code"),
    [
        ("local", signal.SIGINT, 130),
        *long(
            ("local", signal.SIGTERM, 143),
            ("serial", signal.SIGINT, 130),
            ("serial", signal.SIGTERM, 143),
            ("serial", signal.SIGHUP, 129),
        ),
    ],
)
def test_what_was_asked_for_is_written_when_a_run_is_ended(
    tmp_path: Path, backend: str, number: signal.Signals, code: int
) -> None:
    model, report, logs = tmp_path / "m.safetensors", tmp_path / "r.json", tmp_path / "logs"
    options = ["--schedule", "constant", "--save", str(model), "--json", str(report), "--log-dir", str(logs)]
    command = [*TRAIN, "--backend", backend, "--model", "mlp:64", "--epochs", "1000000", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        wait_for_line(program, "epoch 3/")
        program.send_signal(number)
        _, errors = program.communicate(timeout=TIMEOUT_S)
    assert program.returncode == code
    assert re.fullmatch(
        rf"\n?dist-relu: error: interrupted in epoch \d+ of 1000000; wrote {model}, {report}, {logs}\.\n", errors
    )
    numbers = json.loads(report.read_text())
    assert numbers["interrupted"]
    assert numbers["steps"] >= 3 * 23
    assert dr.load_model(model).sha256() == dr.load_model(logs / "model.safetensors").sha256()
    assert numbers["params_sha256"] == dr.load_model(model).sha256()
    with dr.start(backend="serial") as coordinator:
        accuracy = coordinator.evaluate(dr.load_model(model), dr.data.load("digits").test).accuracy
    assert accuracy is not None
    assert accuracy > 0.8


@pytest.mark.long
def test_a_policy_is_written_when_its_learning_is_ended(tmp_path: Path) -> None:
    pytest.importorskip("gymnasium")
    model, policy = tmp_path / "m.safetensors", tmp_path / "policy.py"
    command = [sys.executable, str(ROOT / "scripts" / "rl.py"), "--backend", "serial", "--steps", "100000"]
    command += ["--horizon", "16", "--save", str(model), "--export", str(policy)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        wait_for_line(program, "iteration ")
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=TIMEOUT_S)
    assert program.returncode == 130
    assert re.search(rf"interrupted in iteration \d+ of \d+; wrote {model}, {policy}\.", errors)
    assert dr.load_model(model).sha256()
    assert "def " in policy.read_text()


@pytest.mark.parametrize("part", [1, 16])
def test_ctrl_c_is_answered_in_a_line_while_the_package_is_imported(part: int) -> None:
    """part: of all modules, after how many Ctrl-C comes."""
    program = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    seen = 0\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        Finder.seen += name.startswith('dist_relu.')\n"
        f"        if Finder.seen == {part}: os.kill(os.getpid(), signal.SIGINT)\n"
        "import dist_relu_main\n"
        "sys.meta_path.insert(0, Finder())\n"
        "dist_relu_main.main(['train'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = run([sys.executable, "-c", program], env=environment)
    assert (done.returncode, done.stderr) == (130, "dist-relu: error: interrupted.\n")


def test_ctrl_c_changes_nothing_about_a_command_that_is_done() -> None:
    program = (
        "import atexit, os, signal, dist_relu_main\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
        "dist_relu_main.main(['--version'])\n"
    )
    done = run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.long
def test_pipes_get_lines_that_are_not_wrapped() -> None:
    command = [*TRAIN, "--backend", "serial", "--epochs", "1", "--model", "mlp:8"]
    done = run(command)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) > 100
