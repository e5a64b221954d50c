"""Models that normalise their samples themselves."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from dist_relu.core.arrays import Array
from dist_relu.data.mapped import NpyFile
from dist_relu.data.moments import moments_of
from dist_relu.data.rows import Rows
from dist_relu.errors import DataError


@pytest.fixture
def x(rng: np.random.Generator) -> Array:
    """Columns of very different scales, of which one is constant, and another cancels."""
    x = rng.standard_normal((500, 6)) * [1, 1e-30, 1e18, 3, 0, 1] + [0, 0, 0, 1e6, 0.1, 0]
    x[250:, 5] = -x[:250, 5]
    return x.astype(np.float32)


def columns(block: Array) -> Array:
    return block


def test_moments_are_those_of_exact_fractions(x: Array) -> None:
    moments = moments_of(Rows(x), columns)
    for c, column in enumerate(x.T):
        terms = [Fraction(float(number)) for number in column]
        mean = sum(terms, Fraction(0)) / len(terms)
        variance = sum(((term - mean) ** 2 for term in terms), Fraction(0)) / len(terms)
        assert moments.mean[c] == float(mean)
        assert moments.deviation[c] == np.sqrt(float(variance))
    assert moments.mean[5] == 0
    np.testing.assert_array_equal(moments.least, x.min(axis=0))
    np.testing.assert_array_equal(moments.most, x.max(axis=0))


def test_moments_do_not_depend_on_the_order_of_the_samples(x: Array, rng: np.random.Generator) -> None:
    for one, other in zip(moments_of(Rows(x), columns), moments_of(Rows(rng.permutation(x)), columns), strict=True):
        np.testing.assert_array_equal(one, other)


def test_numbers_are_normalised_as_those_of_scikit_learn(rng: np.random.Generator) -> None:
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    x = (rng.standard_normal((300, 5)) * [1, 20, 1, 0.1, 1] + 2).astype(np.float32)
    x[:, 2] = 7
    data = dr.Dataset(x, x[:, 0])
    for how, scaler in (("standard", StandardScaler()), ("minmax", MinMaxScaler())):
        model = dr.normalized(nn.mlp([4], 1), data, how)  # type: ignore[arg-type]
        scaled = model.build((5,)).initialize().activations(x)[0]
        np.testing.assert_allclose(scaled, scaler.fit_transform(x.astype(float)), atol=2e-5)
        assert (scaled[:, 2] == 0).all()


@pytest.mark.parametrize("front", [[], [nn.FromNCHW()], [nn.Reshape((4, 3, 2))]], ids=["images", "NCHW", "rows"])
def test_images_are_normalised_channel_by_channel(front: list[nn.Layer], rng: np.random.Generator) -> None:
    images = (rng.standard_normal((50, 4, 3, 2)) * [3.0, 0.01] + [100, -1]).astype(np.float32)
    x = images.transpose(0, 3, 1, 2) if front and isinstance(front[0], nn.FromNCHW) else images
    x = np.ascontiguousarray(x.reshape(50, -1) if front and isinstance(front[0], nn.Reshape) else x)
    model = dr.normalized(nn.Sequential(*front, nn.Flatten()), dr.Dataset(x, np.arange(50) % 3), "images")
    y = model.build(x.shape[1:]).initialize().forward(x)
    expected = (images - images.mean(axis=(0, 1, 2), dtype=float)) / images.std(axis=(0, 1, 2), dtype=float)
    np.testing.assert_allclose(y, expected.reshape(50, -1), atol=2e-3)


def test_bytes_and_files_of_the_same_samples_make_the_same_model(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels, y = rng.integers(0, 256, (90, 12), np.uint8), np.arange(90) % 3
    floats = np.multiply(pixels, np.float32(1 / 255), dtype=np.float32)
    np.save(tmp_path / "floats.npy", floats)
    models = [
        dr.normalized(nn.mlp([4], 3), dr.Dataset(x, y), "standard")
        for x in (floats, Rows(pixels, scale=1 / 255), Rows(NpyFile.of(tmp_path / "floats.npy")))
    ]
    layers = [model.layers[0] for model in models]
    assert all(isinstance(layer, nn.Standardize) for layer in layers)
    assert len({str(vars(layer)["mean"]) + str(vars(layer)["deviation"]) for layer in layers}) == 1


def test_a_saved_model_keeps_its_numbers(tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.random((40, 7), np.float32) * 30
    model = dr.normalized(nn.mlp([4], 2), dr.Dataset(x, np.arange(40) % 2), "minmax").build((7,)).initialize()
    dr.save_model(model, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(dr.load_model(tmp_path / "model.safetensors").forward(x), model.forward(x))
    assert "Standardize" in nn.summary(model)
    assert repr(model.layers[0]) == "Standardize(7 channels)"


def test_what_has_no_scale_or_no_channels_is_refused(rng: np.random.Generator) -> None:
    rows = dr.Dataset(rng.random((9, 4)), np.arange(9) % 2)
    with pytest.raises(DataError, match=r"samples of shape \(4,\) are no images"):
        dr.normalized(nn.mlp([4], 2), rows, "images")
    symbols = dr.Dataset(np.arange(36).reshape(9, 4), np.arange(9) % 2)
    with pytest.raises(ValueError, match="looks samples up as symbols"):
        dr.normalized(nn.Sequential(nn.Embedding(36, 3), nn.Flatten(), nn.Dense(2)), symbols)
    with pytest.raises(ValueError, match="how='standart': expected"):
        dr.normalized(nn.mlp([4], 2), rows, "standart")  # type: ignore[arg-type]
