"""Models as Python modules that need NumPy alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dist_relu import nn
from dist_relu.export import numpy_function, numpy_source
from tests.cases import long
from tests.integrations.models import OF_LAYERS, OF_MODELS, of_layers, of_models, samples, with_numbers
from tests.nn.test_played_passes import Scale

CONVOLUTIONS = [
    nn.Conv2d(6, 3, stride=2, groups=3),
    nn.Conv2d(6, (3, 2), padding="valid", dilation=(1, 2), bias=False),
    nn.Conv2d(6, 5, padding=2, groups=6),
    nn.MaxPool2d(3, stride=2, padding=1),
    nn.AvgPool2d((3, 2), padding=(1, 0)),
]


@pytest.mark.parametrize("dtype", ["float32", *long("float64")])
@pytest.mark.parametrize("number", range(len(OF_LAYERS)))
def test_every_layer_computes_the_same_in_numpy(number: int, dtype: str) -> None:
    model = of_layers(number, dtype)
    x = samples(model)
    y = numpy_function(model)(x)
    assert y.dtype == model.dtype
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(y, model.forward(x), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=repr)
def test_windows_lie_where_layers_have_them(layer: nn.Layer) -> None:
    model = with_numbers(nn.Sequential(layer).build((8, 7, 6)))
    x = samples(model)
    np.testing.assert_allclose(numpy_function(model)(x), model.forward(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OF_MODELS)
def test_models_differ_by_rounding_alone(name: str) -> None:
    model = of_models(name)
    x = samples(model)
    y = model.forward(x)
    np.testing.assert_allclose(numpy_function(model)(x), y, rtol=0, atol=2e-6 * np.abs(y).max())


def test_modules_need_numpy_alone(tmp_path: Path) -> None:
    model = of_models("resnet")
    x = samples(model)
    (tmp_path / "network.py").write_text(numpy_source(model))
    np.save(tmp_path / "x.npy", x)
    program = (
        "import sys; sys.modules['dist_relu'] = sys.modules['numba'] = sys.modules['scipy'] = None\n"
        "import numpy as np, network\n"
        "np.save('y.npy', network.forward(np.load('x.npy')))\n"
    )
    subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, '.')\n{program}"], cwd=tmp_path, check=True
    )
    y = model.forward(x)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), y, rtol=0, atol=2e-6 * np.abs(y).max())


def test_classes_with_names_are_predicted_by_these() -> None:
    model = of_models("mlp")
    model.predicts, model.classes = "classes", ("a", "b", "it's", "d")
    module: dict[str, object] = {}
    exec(numpy_source(model), module)
    x = samples(model)
    expected = [model.classes[number] for number in model.forward(x).argmax(axis=1)]
    assert module["predict"](x) == expected  # type: ignore[operator]


def test_samples_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x has shape \(2, 5\); expected \(N, 6\)"):
        numpy_function(of_models("mlp"))(np.zeros((2, 5)))


def test_a_layer_of_ones_own_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="Scale can't be exported: it is a layer of your own"):
        numpy_source(nn.Sequential(Scale()).build((3,)).initialize())


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="no parameters yet"):
        numpy_source(nn.mlp([2], 2).build((3,)))
