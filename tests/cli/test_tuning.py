"""`dist-relu train` finds out what is fastest, says so, and writes it down."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cases import long
from tests.cli.test_cli import call, train

RUN = ("--model", "mlp:8", "--epochs", "1")


def run_json(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "run.json").read_text())
    return content


def test_shards_that_were_found_are_those_of_the_run_whoever_goes_on_or_reproduces_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    code, output, errors = train(capsys, *RUN, "--shards", "auto", "--checkpoint", str(folder))
    assert (code, errors) == (0, "")
    found = re.match(r"(\d) shards?: \S+ ms a step; \d took .*, \d took .* \(.* steps in \d+ rounds?, .* s\)\.", output)
    assert found
    shards = int(found[1])
    info = run_json(folder)
    assert (info["shards"], info["options"]["shards"]) == (shards, shards)  # type: ignore[index]
    assert info["tuning"]["shards"] == shards  # type: ignore[index]
    (choice,) = info["tuning"]["choices"]  # type: ignore[index]
    assert [runner["value"] for runner in choice["outcome"]["runners"]] == [1, 2, 4]
    options = "--epochs", "1", "--shards", "auto", "--checkpoint", str(folder), "--resume"
    code, output, _ = train(capsys, "--model", "mlp:8", *options)
    assert code == 0
    assert f"{shards} shard{'s' * (shards > 1)}: the run that goes on has so many." in output
    code, output, _ = call(capsys, "reproduce", str(folder), "--backend", "serial")
    assert code == 0
    assert "Equal to the bit" in output


@pytest.mark.long
def test_shards_that_are_given_stay_whatever_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digests = []
    for options in (["--backend", "serial"], ["--backend", "local", "--workers", "auto", "--bucket", "auto"]):
        path = tmp_path / "r.json"
        code, output, errors = call(capsys, "train", *RUN, "--shards", "2", *options, "--json", str(path))
        assert (code, errors) == (0, "")
        numbers = json.loads(path.read_text())
        assert numbers["shards"] == 2
        digests.append(numbers["params_sha256"])
    assert re.match(r"\d workers?: ", output)
    assert "\nMessages of 256 KiB: on one node none are sent.\n" in output
    assert digests[0] == digests[1]


def test_where_there_is_nothing_to_try_it_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = train(capsys, *RUN, "--shards", "1", "--workers", "AUTO")
    assert code == 0
    assert output.startswith("1 worker: there are no more.\n")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--bucket", "10"), "10: must be at least 64 KiB, or auto."),
        (("--bucket", "wide"), "wide: expected a size, such as 256KiB, 1MiB or a number of bytes, or auto."),
        *long((("--shards", "some"), "'some' is not a valid integer range, or auto.")),
        (("--shards", "auto", "--compress", "bf16"), "--compress is about groups of shards, so their number is no"),
        (
            ("--shards", "auto", "--replicas", "2", "--local-steps", "4"),
            "--replicas is about groups of shards, so their number is no",
        ),
        (
            ("--workers", "some"),
            "some: expected a number from 1 on, or two such as 2:8, the smaller one first, or auto.",
        ),
    ],
)
def test_what_is_neither_a_number_nor_auto_is_refused(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], error: str
) -> None:
    code, _, errors = train(capsys, *RUN, *options)
    assert code == 2
    assert error in " ".join(errors.split())


def test_what_has_no_steps_to_try_has_no_auto(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, errors = call(capsys, "analyze", "learning-rate", "--workers", "auto")
    assert code == 2
    assert "auto: expected a number from 1 on" in " ".join(errors.split())
