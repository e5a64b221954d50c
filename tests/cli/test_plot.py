"""`dist-relu plot`: every picture is drawn from what another command wrote."""

from __future__ import annotations

import builtins
import inspect
import json
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from dist_relu.analysis.examples import fit_curve
from dist_relu.cli.main import main
from dist_relu.reports.plots.weights import first_weights
from tests.cases import long
from tests.cli.test_cli import call, train

PNG = b"\x89PNG\r\n\x1a\n"


def texts(path: Path) -> str:
    """What an SVG file was made of, with glyphs as the comments that name them."""
    ElementTree.parse(path)
    return path.read_text()


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, which nobody may change."""
    folder = tmp_path_factory.mktemp("logs") / "first"
    main(["train", "--backend", "serial", "--epochs", "2", "--quiet", "--log-dir", str(folder), "--watch-every", "1"])
    return folder


def drawn(capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
    """`dist-relu plot ...` names the files that it wrote."""
    paths = [path for option, path in pairwise(arguments) if option == "--output"]
    assert call(capsys, "plot", *arguments) == (0, "".join(f"Wrote {path}.\n" for path in paths), "")


def test_gradients_of_several_activations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, png, svg = (str(tmp_path / name) for name in ("gradients.json", "a.png", "a.svg"))
    options = "--depth", "5", "--activation", "relu", "--activation", "tanh", "--json", source, "--backend", "serial"
    assert call(capsys, "analyze", "gradients", *options)[0] == 0
    drawn(capsys, "gradients", source, "--output", png, "--output", svg)
    assert Path(png).read_bytes().startswith(PNG)
    for text in ("norm of the gradient", "at weights", "relu", "tanh"):
        assert f"<!-- {text} -->" in texts(Path(svg))


def test_gradients_through_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, svg = (str(tmp_path / name) for name in ("recurrence.json", "a.svg"))
    options = "--model", "rnn:8", "--init", "identity", "--init", "he-normal", "--json", source, "--backend", "serial"
    assert call(capsys, "analyze", "recurrence", *options)[0] == 0
    drawn(capsys, "recurrence", source, "--output", svg)
    for text in ("norm of the gradient at the state", "identity", "he-normal"):
        assert f"<!-- {text} -->" in texts(Path(svg))


def test_the_loss_at_ever_higher_learning_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, png, svg = (str(tmp_path / name) for name in ("rates.json", "a.png", "a.svg"))
    options = "--model", "mlp:20", "--steps", "60", "--json", source, "--backend", "serial"
    code, output, errors = call(capsys, "analyze", "learning-rate", *options)
    assert (code, errors) == (0, "")
    suggestion = json.loads(Path(source).read_text())["suggestion"]
    assert output.endswith(f"Suggested learning rate: {suggestion:.2g}\n")
    drawn(capsys, "learning-rate", source, "--output", png, "--output", svg)
    assert Path(png).read_bytes().startswith(PNG)
    for text in ("learning rate", "loss of a step", "smoothed", f"falls fastest: {suggestion:.2g}"):
        assert f"<!-- {text} -->" in texts(Path(svg))


def test_activations_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, source, svg = (str(tmp_path / name) for name in ("model.safetensors", "activations.json", "a.svg"))
    dr.save_model(nn.mlp([20, 10], 10).build((64,)).initialize(), model)
    assert call(capsys, "analyze", "activations", model, "--json", source, "--backend", "serial")[0] == 0
    drawn(capsys, "activations", source, "--output", svg)
    for text in ("dead units", "share in %", "3 ReLU"):
        assert f"<!-- {text} -->" in texts(Path(svg))


def test_activations_over_the_steps_of_a_run(tmp_path: Path, logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn(capsys, "activations", str(logs), "--output", str(tmp_path / "a.svg"))
    for text in ("step", "silent: 0 for all samples of a batch", "dead: 0 in all steps of an epoch", "1 ReLU"):
        assert f"<!-- {text} -->" in texts(tmp_path / "a.svg")


def test_gradients_over_the_steps_of_a_run(tmp_path: Path, logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn(capsys, "gradients", str(logs), "--output", str(tmp_path / "a.svg"))
    for text in ("norm of the gradient", "changes of weights", "2.weight"):
        assert f"<!-- {text} -->" in texts(tmp_path / "a.svg")


def test_preactivations_over_the_steps_of_a_run(tmp_path: Path, logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn(capsys, "preactivations", str(logs), "--output", str(tmp_path / "a.svg"))
    for text in ("pre-activation", "into 1 ReLU", "into 3 ReLU", "density, of the highest there"):
        assert f"<!-- {text} -->" in texts(tmp_path / "a.svg")


@pytest.mark.long
def test_of_many_layers_some_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = "mlp:" + ",".join(["4"] * 30)
    options = "--model", model, "--epochs", "1", "--quiet", "--log-dir", str(tmp_path / "run")
    assert train(capsys, *options)[0] == 0
    for command, first, last in (("activations", "1 ReLU", "59 ReLU"), ("gradients", "0.weight", "60.weight")):
        svg = tmp_path / f"{command}.svg"
        drawn(capsys, command, str(tmp_path / "run"), "--output", str(svg))
        assert f"<!-- {first} -->" in texts(svg)
        assert f"<!-- {last} -->" in texts(svg)
        assert len(re.findall(r"<!-- \d+( ReLU|.weight) -->", texts(svg))) == 7


@pytest.mark.long
def test_a_run_that_diverged_can_be_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "run")
    assert train(capsys, "--lr", "1e30", "--quiet", "--log-dir", folder, "--watch-every", "1")[0] == 1
    for command in ("activations", "gradients", "preactivations", "curves"):
        drawn(capsys, command, folder, "--output", str(tmp_path / "a.png"))


def test_curves_of_several_runs(tmp_path: Path, logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "second"
    assert train(capsys, "--epochs", "1", "--quiet", "--log-dir", str(other))[0] == 0
    drawn(capsys, "curves", str(logs), str(other), "--output", str(tmp_path / "c.svg"))
    for text in ("mean loss of a batch", "accuracy", "first", "second"):
        assert f"<!-- {text} -->" in texts(tmp_path / "c.svg")


def test_training_of_several_activations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, svg = (str(tmp_path / name) for name in ("training.json", "a.svg"))
    options = "--activation", "relu", "--activation", "gelu", "--epochs", "1", "--seeds", "2", "--model", "mlp:20"
    assert call(capsys, "analyze", "training", *options, "--json", source, "--backend", "serial")[0] == 0
    drawn(capsys, "training", source, "--output", svg)
    for text in ("mean loss of a batch", "gradient of all parameters", "zeros in hidden layers", "relu", "gelu"):
        assert f"<!-- {text} -->" in texts(Path(svg))


def test_training_that_diverged_is_told_in_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    course = {"steps": [0, 10], "loss": [2.0, 1.0], "gradient_norm": [1.0, 0.5], "sparsity": [0.5, 0.6]}
    fine, lost = {"test_loss": 1.0, "test_accuracy": 0.5}, {"test_loss": None, "test_accuracy": None}
    runs = [
        {"activation": "relu", "seed": 0, **course, **fine},
        {"activation": "relu", "seed": 1, **course, **lost},
        {"activation": "tanh", "seed": 0, **{key: [] for key in course}, **lost},
    ]
    source, svg = tmp_path / "training.json", tmp_path / "a.svg"
    source.write_text(json.dumps({"runs": runs}))
    drawn(capsys, "training", str(source), "--output", str(svg))
    assert "<!-- relu (1 of 2 diverged) -->" in texts(svg)
    assert "<!-- tanh (1 of 1 diverged) -->" in texts(svg)


@pytest.mark.long
def test_relu_beside_linear_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    svg = tmp_path / "relu.svg"
    drawn(capsys, "relu", "--output", str(svg))
    for text in ("linear layers", "with ReLU between them", "mean squared error"):
        assert f"<!-- {text} -->" in texts(svg)


def test_linear_layers_fit_a_line_and_relu_fits_the_curve() -> None:
    with dr.start(backend="serial") as coordinator:
        fit = fit_curve(coordinator)
    line, curve = fit.outputs.values()
    assert np.abs(np.diff(line, 2)).max() < 1e-5
    truth = np.sin(3 * fit.grid) + fit.grid / 3
    assert np.square(line - truth).mean() > 0.3
    assert np.square(curve - truth).mean() < 0.01


@pytest.mark.long
def test_the_gallery_has_every_function_of_one_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    svg = tmp_path / "family.svg"
    drawn(capsys, "family", "--output", str(svg))
    functions = {
        name
        for name, function in vars(dr.activations).items()
        if inspect.isfunction(function) and "x" in inspect.signature(function).parameters and name[0] != "_"
    }
    of_rows = {"crelu", "softmax", "log_softmax", "glu", "reglu", "swiglu"}
    assert of_rows < functions
    for name in functions - of_rows - {"derivative", "value_and_derivative"}:
        assert f"<!-- {name} -->" in texts(svg)


def test_first_weights_of_any_model_with_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = {
        "weights of layer 0 Dense, 8×8: the strongest 64 of 70 units": (nn.mlp([70], 10), (64,), ()),
        "weights of layer 0 Dense, 2×3: all units": (nn.mlp([5], 10), (18,), ("--shape", "2,3,3")),
        "weights of layer 1 Dense, 4×3: all units": (nn.Sequential(nn.Flatten(), nn.Dense(5)), (4, 3, 2), ()),
        "weights of layer 1 Conv2d, 3×3: all units": (nn.cnn((8, 8, 1), 10), (64,), ()),
        "weights of layer 0 Conv2d, 5×4: all units": (nn.Sequential(nn.Conv2d(7, (5, 4))), (8, 8, 3), ()),
    }
    saved, svg = str(tmp_path / "model.safetensors"), tmp_path / "a.svg"
    for title, (model, shape, options) in models.items():
        dr.save_model(model.build(shape).initialize(), saved)
        drawn(capsys, "weights", saved, *options, "--output", str(svg))
        assert f"<!-- {title} -->" in texts(svg)


def test_images_of_weights_are_those_of_their_units() -> None:
    dense = nn.Sequential(nn.Dense(5)).build((2 * 3 * 4,)).initialize()
    name, images = first_weights(dense, (2, 3, 4))
    assert name == "0 Dense"
    assert images.shape == (5, 2, 3, 4)
    np.testing.assert_array_equal(images[3].reshape(-1), dense.params[0].value[:, 3])
    filters = nn.Sequential(nn.Conv2d(5, (2, 3))).build((8, 8, 4)).initialize()
    np.testing.assert_array_equal(first_weights(filters)[1][3], filters.params[0].value[..., 3])


@pytest.mark.parametrize("data", ["moons", *long("spirals")])
def test_boundary_of_a_network_that_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str], data: str) -> None:
    svg = tmp_path / "a.svg"
    options = "--model", "mlp:16,16", "--output", str(svg)
    drawn(capsys, "boundary", "--data", data, *options)
    content = texts(svg)
    for text in ("class 1", "kinks of 1 ReLU", "kinks of 3 ReLU"):
        assert f"<!-- {text} -->" in content
    (accuracy,) = re.findall(r"<!-- classes: (.*)% of unseen samples right -->", content)
    assert float(accuracy) > 90


def test_boundary_of_a_saved_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that is linear on either side of a line: it sees class 2 where a sample's first number is below 0.5."""
    model = nn.mlp([1], 3).build((2,)).initialize()
    model.values[:] = 0
    weight, _, last, offset = model.views(model.values)
    weight[0, 0], last[0, 0], offset[2] = 1, 2, 1
    x = np.array([[-1, 0], [1, 0], [-1, 1], [1, 1], [0.2, 0.5]] * 4, np.float32)
    saved, samples, svg = tmp_path / "model.safetensors", tmp_path / "data.npz", tmp_path / "a.svg"
    dr.save_model(model, saved)
    np.savez(samples, x=x, y=np.where(x[:, 0] < 0.5, 2, 0))
    options = "--model", str(saved), "--data", str(samples), "--output", str(svg)
    drawn(capsys, "boundary", *options)
    for text in ("classes: 100.0% of unseen samples right", "2 linear pieces in view", "class 2"):
        assert f"<!-- {text} -->" in texts(svg)


def test_weights_and_boundaries_that_there_are_not_are_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = {
        "wide": nn.mlp([5], 10).build((13,)),
        "recurrent": nn.rnn(5, 10).build((4, 3)),
        "plain": nn.Sequential(nn.LayerNorm()).build((4,)),
    }
    for name, model in models.items():
        dr.save_model(model.initialize(), tmp_path / name)
    (tmp_path / "text.safetensors").write_text("none")
    np.savez(tmp_path / "three.npz", x=np.zeros((9, 3)), y=np.zeros(9, int))
    for command, told in (
        (("weights", "wide"), "The first layer has 13 inputs, which are no square image."),
        (("weights", "wide", "--shape", "2,3"), "The first layer has 13 inputs, not 2·3."),
        (("weights", "wide", "--shape", "2x3"), "--shape 2x3: expected HEIGHT,WIDTH"),
        (("weights", "recurrent"), "The first layer with parameters is 0 RNN"),
        (("weights", "plain"), "only those of Dense and Conv2d are images"),
        (("weights", "text.safetensors"), "can't be read as a model"),
        (("boundary", "--model", "text.safetensors"), "can't be read as a model"),
        (("boundary", "--model", "mlp:no"), "--model mlp:no: 'no' is no whole number"),
        (("boundary", "--data", "three.npz"), "Samples have shape (3,)"),
        (("boundary", "--data", "suns"), "--data suns: expected moons, spirals, or a .npz file."),
    ):
        paths = [str(tmp_path / part) if (tmp_path / part).exists() else part for part in command]
        code, _, errors = call(capsys, "plot", *paths, "--output", str(tmp_path / "a.png"))
        assert code == 2
        assert told in errors
        assert errors.count("\n") == 1


@pytest.mark.parametrize("suffix", [".svg", *long(".png", ".pdf")])
def test_a_picture_says_what_was_run_or_what_it_is_told_to(
    tmp_path: Path, logs: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    drawn(capsys, "curves", str(logs), "--output", str(path), "--width", "6", "--dpi", "50")
    first = path.read_bytes()
    drawn(capsys, "curves", str(logs), "--output", str(path), "--width", "6", "--dpi", "50", "--title", "My run")
    assert first != path.read_bytes()
    if suffix == ".svg":
        assert b"<!-- mlp:256,128 on digits, sgd, lr 0.1, batches of 64, seed 0 -->" in first
        assert "<!-- My run -->" in texts(path)
    if suffix == ".pdf":
        assert first.startswith(b"%PDF")
    if suffix == ".png":
        assert int.from_bytes(first[16:20]) == 6 * 50  # its width


@pytest.mark.long
def test_the_same_picture_is_the_same_file(tmp_path: Path, logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / name for name in ("a.svg", "b.svg")]
    for path in paths:
        assert call(capsys, "plot", "curves", str(logs), "--output", str(path))[0] == 0
    first, second = (path.read_bytes() for path in paths)
    assert first == second


def test_what_cannot_be_drawn_is_told_in_a_line(
    tmp_path: Path, logs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "wrong.json"
    for content in ("", "[]", '{"runs": 3}', '{"runs": []}', '{"runs": [{"loss": 1}]}', '{"layers": [{"name": 1}]}'):
        wrong.write_text(content)
        for command in ("gradients", "recurrence", "activations", "training"):
            code, _, errors = call(capsys, "plot", command, str(wrong), "--output", str(tmp_path / "a.png"))
            assert code == 2
            assert f"expected a file that `dist-relu analyze {command} --json` wrote." in errors
    (tmp_path / "steps.jsonl").write_text("3\n")
    code, _, errors = call(capsys, "plot", "curves", str(tmp_path), "--output", str(tmp_path / "a.png"))
    assert code == 2
    assert "is no log of a run" in errors
    plain = tmp_path / "recurrent"
    options = "--data", "digits", "--model", "rnn:4", "--epochs", "1", "--quiet", "--log-dir", str(plain)
    assert train(capsys, *options)[0] == 0
    code, _, errors = call(capsys, "plot", "preactivations", str(plain), "--output", str(tmp_path / "a.png"))
    assert code == 2
    assert "there are no pre-activations to draw" in errors
    code, _, errors = call(capsys, "plot", "curves", str(logs), "--output", str(tmp_path / "a.jpg"))
    assert code == 2
    assert "expected a name that ends in .png, .svg or .pdf" in errors
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, errors = call(capsys, "plot", "curves", str(logs))
    assert code == 2
    assert "pip install 'dist_relu[plot]'" in errors


def test_nothing_else_needs_matplotlib(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    plain = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        assert not name.startswith("matplotlib")
        return plain(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert call(capsys, "analyze", "gradients", "--model", "mlp:5", "--samples", "5", "--backend", "serial")[0] == 0
