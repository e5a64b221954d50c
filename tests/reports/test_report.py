"""`dist-relu report`: a run as a page, as a user meets it."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from dist_relu.cli.main import main
from tests.cases import long
from tests.cli.test_cli import call, train

VOID = {"meta", "img"}
OPTIONS = ["--epochs", "2", "--seed", "3", "--shards", "2", "--lr", "0.05", "--quiet"]


class Page(HTMLParser):
    """A page, taken apart.  texts: of each kind of element; images: (source, alternative)."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.content = path.read_text()
        self.texts: dict[str, list[str]] = {}
        self.images: list[tuple[str, str]] = []
        self.references: list[str] = []
        self._open: list[str] = []
        self.feed(self.content)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.references += [attributes[name] or "" for name in ("src", "href", "srcset") if name in attributes]
        self.texts.setdefault(tag, [])
        if tag == "img":
            self.images.append((attributes["src"] or "", attributes["alt"] or ""))
        if tag not in VOID:
            self._open.append(tag)
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data


@pytest.fixture(scope="module")
def ended_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that ended well, which nobody may change."""
    folder = tmp_path_factory.mktemp("ended") / "run"
    main(["train", "--backend", "serial", *OPTIONS, "--log-dir", str(folder)])
    return folder


@pytest.fixture
def run(ended_run: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(ended_run, tmp_path / "run"))


@pytest.fixture(scope="module")
def page(ended_run: Path) -> Page:
    """The page of `ended_run`."""
    path = ended_run.parent / "page.html"
    main(["report", str(ended_run), "--output", str(path)])
    return Page(path)


def page_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> Page:
    path = folder.parent / "page.html"
    assert call(capsys, "report", str(folder), "--output", str(path)) == (0, f"Wrote {path}.\n", "")
    return Page(path)


def test_a_page_has_everything_of_a_run(ended_run: Path, page: Page) -> None:
    assert page.texts["h1"] == page.texts["title"] == ["mlp:256,128 on digits"]
    assert page.texts["h2"] == [
        "Results",
        "Learning",
        "Gradients and changes of weights",
        "Sparsity and dead units",
        "Pre-activations",
        "Weights of the first layer",
        "Epochs",
        "Model",
        "What was run",
        "Where",
    ]
    results = json.loads((ended_run / "run.json").read_text())["results"]
    assert {f"{results['test_accuracy']:.2%}", results["params_sha256"], "0.05"} <= set(page.texts["dd"])
    assert len(page.texts["tr"]) == 1 + 2


@pytest.mark.long
def test_a_page_tells_the_learning_rate_that_nobody_gave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert train(capsys, "--epochs", "1", "--model", "mlp:8", "--quiet", "--log-dir", str(folder))[0] == 0
    page = page_of(folder, capsys)
    assert page.texts["dd"][page.texts["dt"].index("lr")] == "0.1"
    assert "--lr 0.1" in page.texts["code"]


def test_a_page_needs_nothing_else(page: Page) -> None:
    assert "script" not in page.texts
    assert len(page.images) == 5
    for source, alternative in page.images:
        head, _, content = source.partition(",")
        assert head == "data:image/svg+xml;base64"
        ElementTree.fromstring(b64decode(content))
        assert len(alternative) > 40
    assert page.references == [source for source, _ in page.images]


def test_the_command_on_a_page_gives_the_same_bits_again(
    ended_run: Path, page: Page, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(" ".join(word for word in page.texts["code"] if word.startswith(("--", "dist-"))))
    assert words[:2] == ["dist-relu", "train"]
    again = tmp_path / "again.json"
    options = "--backend", "serial", "--quiet", "--report", str(again)
    assert call(capsys, *words[1:], *options)[0] == 0
    results = json.loads((ended_run / "run.json").read_text())["results"]
    assert json.loads(again.read_text())["params_sha256"] == results["params_sha256"]


def test_text_of_the_user_is_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "<b>&amp;'.npz"
    np.savez(path, x=np.eye(9, 4, dtype=np.float32), y=np.arange(9) % 2)
    options = "--data", str(path), "--model", "mlp:4", "--batch-size", "4", "--epochs", "1", "--quiet"
    assert train(capsys, *options, "--log-dir", str(tmp_path / "run"))[0] == 0
    page = page_of(tmp_path / "run", capsys)
    assert page.texts["h1"] == [f"mlp:4 on {path}"]
    assert "b" not in page.texts
    assert "Weights of the first layer" not in page.texts["h2"]  # four numbers are no image


@pytest.mark.long
def test_a_run_that_is_not_over_has_a_page(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**content, "results": {}}))
    (run / "model.safetensors").unlink()
    (run / "steps.jsonl").write_text("".join((run / "steps.jsonl").read_text().splitlines(keepends=True)[:1]))
    (run / "epochs.jsonl").write_text("")
    page = page_of(run, capsys)
    assert "There are no results: the run still goes on, or it was killed." in page.content
    assert "Epochs" not in page.texts["h2"]
    (run / "steps.jsonl").write_text("")
    assert not page_of(run, capsys).images


def test_a_page_tells_why_it_shows_no_weights(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "model.safetensors").write_text("none")
    page = page_of(run, capsys)
    assert len(page.images) == 4
    assert any("first layer can't be shown" in text and "can't be read as a model" in text for text in page.texts["p"])


@pytest.mark.long
def test_a_run_that_diverged_has_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert train(capsys, "--lr", "1e30", "--quiet", "--log-dir", str(folder), "--watch-every", "1")[0] == 1
    page = page_of(folder, capsys)
    assert "There are no results: the run ended before its time. The loss became" in page.content
    assert len(page.images) == 4


@pytest.mark.long
@pytest.mark.parametrize("model", ["rnn:8", "resnet:8", *long("cnn")])
def test_any_model_has_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str) -> None:
    folder = tmp_path / "run"
    assert train(capsys, "--model", model, "--epochs", "1", "--quiet", "--log-dir", str(folder))[0] == 0
    headings = page_of(folder, capsys).texts["h2"]
    assert ("Weights of the first layer" in headings) == (model != "rnn:8")


def test_a_page_shows_what_is_whole_and_says_what_is_not(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("run.json", "steps.jsonl", "epochs.jsonl"):
        content = (run / name).read_text()
        (run / name).write_text("]" + content if name != "run.json" else content[: len(content) // 2])
    code, _, errors = call(capsys, "report", str(run), "--output", str(tmp_path / "a.html"))
    assert code == 0
    assert errors.count("Left out, since it is damaged: ") == 3
    page = Page(tmp_path / "a.html")
    assert {"Learning", "Epochs"} <= set(page.texts["h2"])
    notes = "".join(page.texts["p"])
    for name in ("run.json: ", "steps.jsonl: line 1: ", "epochs.jsonl: line 1: "):
        assert f"Left out, since it is damaged: {name}" in notes


@pytest.mark.long
def test_a_run_without_its_description_has_a_page(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "run.json").unlink()
    assert call(capsys, "report", str(run), "--output", str(tmp_path / "a.html"))[0] == 0
    assert {"Learning", "Epochs"} <= set(Page(tmp_path / "a.html").texts["h2"])


def test_what_has_no_page_is_told_in_a_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def error(*arguments: str) -> str:
        code, _, errors = call(capsys, "report", *arguments)
        assert code == 2
        assert errors.count("\n") == 1
        return errors

    assert "has no run.json; expected a folder that dist-relu train --log-dir wrote." in error(str(tmp_path))
    assert "expected a name that ends in .html" in error(str(run), "--output", str(tmp_path / "a.pdf"))
    assert "does not exist or can't be written to" in error(str(run), "--output", str(tmp_path / "no" / "a.html"))
    for name in ("run.json", "steps.jsonl", "epochs.jsonl"):
        (run / name).write_text("3\n")
    assert "is no log of a run" in error(str(run), "--output", str(tmp_path / "a.html"))
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert "Reports need jinja2. Install it: pip install 'dist_relu[plot]'." in error(str(run))
