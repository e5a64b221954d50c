"""Labels that are text become classes, whose names stay with the data, the model, its file, and what is predicted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import DataError, Dataset, DataWarning, nn
from tests.cli.test_cli import call

NAMES = ["dog", "cat", "eel", "cat", "dog", "eel", "cat", "cat", "dog", "eel"]
X = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "y", [NAMES, np.array(NAMES), np.array(NAMES, object), np.array(NAMES, np.dtypes.StringDType())]
)
def test_names_become_numbers_in_their_order(y: Any) -> None:
    data = Dataset(X, y)
    assert data.classes == ("cat", "dog", "eel")
    assert data.y.tolist() == [("cat", "dog", "eel").index(name) for name in NAMES]
    assert data.num_outputs() == 3
    assert "classes cat, dog, eel" in repr(data)


def test_parts_share_the_names_that_they_are_given(rng: np.random.Generator) -> None:
    train = Dataset(X, NAMES)
    test = Dataset(X[:2], ["eel", "dog"], classes=train.classes)
    assert test.y.tolist() == [2, 1]
    assert dr.data.Split(train, test).num_outputs() == 3
    assert {part.classes for part in dr.data.split(train, 0.3)} == {train.classes}
    with pytest.raises(DataError, match="Classes to train on are cat, dog, eel, but those to test with dog, eel"):
        dr.data.Split(train, Dataset(X[:2], ["eel", "dog"]))


@pytest.mark.parametrize(
    ("y", "classes", "message"),
    [
        (["cat", "cow"], ("cat", "dog"), r"y\[1\] is cow, which is none of the classes cat, dog"),
        (np.array(["cat", None], object), None, r"y\[1\] is None; expected the name of a class"),
        (np.array([["cat", "dog"], ["dog", "cat"]]), None, r"text of shape \(2, 2\); expected the name of a class"),
        ([0, 2], ("cat", "dog"), r"y\[1\] is 2, but there are 2 classes: cat, dog"),
        ([0.0, 1.0], ("cat", "dog"), "are for class numbers, but y is float64"),
        ([0, 1], ("cat", "cat"), "cat stands there twice"),
        ([0, 1], (), "There are 0 names of classes"),
    ],
)
def test_labels_that_are_no_classes_are_refused(y: Any, classes: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Dataset(X[:2], y, classes=classes)


def test_numbers_that_are_text_are_taken_for_names_with_a_warning() -> None:
    with pytest.warns(DataWarning, match=r"look like numbers; for these pass y.astype\('float64'\)"):
        assert Dataset(X[:2], np.array(["1.5", "2"])).classes == ("1.5", "2")


@pytest.fixture(scope="module")
def trained() -> nn.Sequential:
    model = nn.Sequential(nn.Dense(3))
    with dr.start(backend="serial") as coordinator:
        coordinator.fit(model, (X, NAMES), dr.optim.SGD(0.1), epochs=30, batch_size=10)
    return model


def test_models_keep_the_names(trained: nn.Sequential, tmp_path: Path) -> None:
    assert trained.classes == trained.blueprint().classes == ("cat", "dog", "eel")
    dr.save_model(trained, tmp_path / "m.safetensors")
    assert dr.load_model(tmp_path / "m.safetensors").classes == trained.classes


def test_states_keep_the_names(tmp_path: Path) -> None:
    data = Dataset(X, NAMES)
    with dr.start(backend="serial") as coordinator:
        trainer = coordinator.trainer(nn.Sequential(nn.Dense(3)), data, dr.optim.SGD(0.1), batch_size=10)
        trainer.fit(epochs=1)
        dr.save_state(trainer.state(), tmp_path / "s")
        assert dr.load_model(tmp_path / "s").classes == data.classes
        assert dr.load_state(tmp_path / "s") == trainer.state()
        named_otherwise = Dataset(X, data.y, classes=("a", "b", "c"))
        with pytest.raises(dr.CheckpointError, match="classes"):
            coordinator.trainer(
                nn.Sequential(nn.Dense(3)), named_otherwise, dr.optim.SGD(0.1), batch_size=10, state=trainer.state()
            )


def test_a_model_is_tested_by_names_and_not_by_numbers(trained: nn.Sequential) -> None:
    some = [place for place, name in enumerate(NAMES) if name != "cat"]
    with dr.start(backend="serial") as coordinator:
        by_number = coordinator.evaluate(trained, (X[some], [("cat", "dog", "eel").index(NAMES[i]) for i in some]))
        assert coordinator.evaluate(trained, (X[some], [NAMES[i] for i in some])) == by_number
        with pytest.raises(DataError, match="a class cow, which is none of the classes cat, dog, eel"):
            coordinator.evaluate(trained, (X[:2], ["cat", "cow"]))


def test_a_model_goes_on_with_its_own_numbers(trained: nn.Sequential) -> None:
    some = [place for place, name in enumerate(NAMES) if name != "cat"]
    with dr.start(backend="serial") as coordinator:
        coordinator.fit(trained, (X[some], [NAMES[i] for i in some]), dr.optim.SGD(1e-6), epochs=1, batch_size=6)
    assert trained.classes == ("cat", "dog", "eel")


def test_names_are_told_by_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.cli.test_cli import train

    data, model, report = tmp_path / "d.npz", str(tmp_path / "m.safetensors"), tmp_path / "r.json"
    np.savez(data, x=np.tile(X, (6, 1)), y=np.array(NAMES * 6))
    options = "--data", str(data), "--model", "mlp:16", "--epochs", "40", "--batch-size", "8"
    logs = str(tmp_path / "logs")
    _, output, _ = train(capsys, *options, "--save", model, "--json", str(report), "--log-dir", logs)
    assert "3 classes (cat, dog, eel), cross-entropy" in output
    assert json.loads(report.read_text())["classes"] == ["cat", "dog", "eel"]
    (tmp_path / "logs" / "steps.jsonl").write_text("")  # of which pictures would be drawn
    call(capsys, "report", logs, "--output", str(tmp_path / "page.html"))
    assert "cat, dog, eel" in (tmp_path / "page.html").read_text()
    _, output, _ = call(capsys, "predict", model, str(data), "--backend", "serial")
    assert output.split() == NAMES * 6
    _, output, _ = call(capsys, "evaluate", model, "--data", str(data), "--backend", "serial", "--json", str(report))
    assert "Classes: cat, dog, eel." in output
    assert json.loads(report.read_text())["classes"] == ["cat", "dog", "eel"]


def test_names_from_a_stranger_do_nothing_to_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.Dense(2)).build((3,)).initialize(0)
    model.predicts, model.classes = "classes", ("\x1b[2Ja\nb", "c")
    dr.save_model(model, tmp_path / "m.safetensors")
    np.save(tmp_path / "x.npy", np.vstack([X, -X]))
    _, output, _ = call(
        capsys, "predict", str(tmp_path / "m.safetensors"), str(tmp_path / "x.npy"), "--backend", "serial"
    )
    assert set(output.splitlines()) == {r"\x1b[2Ja\nb", "c"}
