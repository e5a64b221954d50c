"""The scripts of the papers: each runs to its end, and leaves what it promises."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import dist_relu as dr
from tests.programs import ROOT, run

SCRIPTS = sorted(path for path in (ROOT / "scripts" / "papers").glob("*.py") if path.stem != "common")


@dataclass(frozen=True)
class QuickRun:
    """What a quick run of a script left."""

    printed: str
    picture: Path
    found: dict[str, Any]


def quick_run(script: Path, folder: Path, *options: str) -> QuickRun:
    ended = run([sys.executable, str(script), "--quick", "--output", str(folder), *options])
    assert (ended.returncode, ended.stderr) == (0, "")
    found = json.loads((folder / f"{script.stem}.json").read_text())
    return QuickRun(ended.stdout, folder / script.stem, found)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            script, id=script.stem, marks=pytest.mark.long if script.stem == "glorot2011" else pytest.mark.chaos
        )
        for script in SCRIPTS
    ],
)
def script(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture(scope="module")
def by_two(script: Path, tmp_path_factory: pytest.TempPathFactory) -> QuickRun:
    return quick_run(script, tmp_path_factory.mktemp("papers"), "--workers", "2", "--backend", "local")


def test_a_paper_has_a_table(by_two: QuickRun) -> None:
    assert by_two.found["rows"]
    assert all(len(row) == len(by_two.found["columns"]) for row in by_two.found["rows"])


def test_a_paper_has_claims_and_a_quick_run_no_verdicts_on_them(by_two: QuickRun) -> None:
    assert by_two.found["claims"]
    for claim in by_two.found["claims"]:
        assert claim["statement"]
        assert claim["figures"]
        assert claim["statement"] not in by_two.printed
    assert "SHOWN" not in by_two.printed
    assert "A quick run: its figures show nothing" in by_two.printed


def test_verdicts_are_printed_with_their_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "papers"))
    common = importlib.import_module("common")
    claims = [common.Claim("Water is wet", True, "100 %"), common.Claim("Fire is cold", False, "0 of 3 seeds")]
    findings = common.Findings([""], [["row"]], claims, lambda path: None)
    with dr.start(backend="serial") as coordinator:
        common.print_findings("A paper", findings, 1.0, coordinator, gives_verdicts=True)
    printed = capsys.readouterr().out
    assert "\nSHOWN: Water is wet (100 %)\nNOT SHOWN: Fire is cold (0 of 3 seeds)\n" in printed


def test_papers_on_cifar10_learn_its_first_images_and_test_with_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, first_class in (("data_batch_1.bin", 0), ("data_batch_2.bin", 4), ("test_batch.bin", 1)):
        rows = np.zeros((4, 3073), np.uint8)
        rows[:, 0] = first_class + np.arange(4)
        (tmp_path / name).write_bytes(rows.tobytes())
    (tmp_path / "batches.meta.txt").write_text("\n".join("abcdefghij"))
    monkeypatch.setenv("DIST_RELU_DATA", str(tmp_path))
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "papers"))
    data = importlib.import_module("common").colour_images(False, 6)
    assert data.train.y.tolist() == [0, 1, 2, 3, 4, 5]
    assert data.test.y.tolist() == [1, 2, 3, 4]
    assert data.train.image_shape == (32, 32, 3)
    assert data.train.classes == data.test.classes == tuple("abcdefghij")


def test_a_paper_has_a_picture(by_two: QuickRun) -> None:
    assert by_two.picture.with_suffix(".png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    ElementTree.parse(by_two.picture.with_suffix(".svg"))
    assert by_two.picture.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_a_paper_comes_to_the_same_on_one_worker(script: Path, by_two: QuickRun, tmp_path: Path) -> None:
    by_one = quick_run(script, tmp_path, "--backend", "serial")
    assert {**by_one.found, "seconds": None} == {**by_two.found, "seconds": None}


def test_a_paper_says_what_was_scaled_down(script: Path) -> None:
    assert "Scaled down: " in run([sys.executable, str(script), "--help"]).stdout
