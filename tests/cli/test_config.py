"""Options of `dist-relu train` in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

import dist_relu as dr
from tests.cli.test_cli import train


def test_a_file_of_options_gives_the_same_run_and_the_command_line_wins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, first, again = tmp_path / "a.toml", tmp_path / "first.st", tmp_path / "again.st"
    options = "--model", "mlp:8", "--epochs", "2", "--lr", "0.05", "--clip-norm", "1", "--seed", "4"
    assert train(capsys, *options, "--quiet", "--save", str(first), "--write-config", str(config))[0] == 0
    assert 'model = "mlp:8"\n' in config.read_text()
    assert train(capsys, "--config", str(config), "--save", str(again)) == (0, "", "")
    assert dr.load_model(again).sha256() == dr.load_model(first).sha256()
    assert train(capsys, "--config", str(config), "--seed", "5", "--save", str(again))[0] == 0
    assert dr.load_model(again).sha256() != dr.load_model(first).sha256()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("learning-rate = 1", "train has no option learning-rate."),
        ("batch_sise = 1", "train has no option batch_sise. Did you mean batch-size?"),
        ("[train]\nlr = 1", "train has no option train."),
        ("epochs = [1]", "epochs = [1]: expected a number or text."),
        ("epochs = true", "epochs = True: expected a number or text."),
        ("quiet = 1", "quiet = 1: expected true or false."),
        ("epochs = 0", "Invalid value for '--epochs': 0 is not in the range x>=1."),
        ("config = 'a'", "train has no option config."),
        ("lr = ", "can't be read as TOML: Invalid value"),
    ],
)
def test_what_a_file_has_wrong_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    path = tmp_path / "a.toml"
    path.write_text(content)
    code, _, errors = train(capsys, "--config", str(path))
    assert code == 2
    assert message in errors
