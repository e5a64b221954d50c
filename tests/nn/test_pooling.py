"""Pooling and reshaping against plain loops, finite differences and PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_relu import nn
from tests.gradients import check_backward
from tests.twin import Array, assert_close

Pool = nn.MaxPool2d | nn.AvgPool2d
LAYERS = [
    nn.MaxPool2d(2),
    nn.MaxPool2d((3, 2), stride=(2, 1), padding=(1, 0)),
    nn.AvgPool2d(2),
    nn.AvgPool2d(3, stride=2, padding=1),
    nn.GlobalAvgPool2d(),
    nn.Flatten(),
    nn.Reshape((5, 2, 7, 3)),
    nn.FromNCHW(),
]


@dataclass(frozen=True)
class Case:
    """Pooling and its input."""

    shape: tuple[int, int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    seed: int

    def input(self) -> Array:
        """Small whole numbers, so that many maxima are reached more than once."""
        return np.random.default_rng(self.seed).integers(-3, 4, self.shape).astype(np.float64)


def pairs(least: int, most: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    kernel = draw(pairs(1, 4))
    stride = kernel if draw(st.booleans()) else draw(pairs(1, 4))
    padding = draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2))
    height, width = (draw(st.integers(k, k + 8)) for k in kernel)
    shape = draw(st.integers(1, 3)), height, width, draw(st.sampled_from([1, 3, 40]))
    return Case(shape, kernel, stride, padding, draw(st.integers(0, 2**32 - 1)))


def built(*layers: nn.Layer, input_shape: tuple[int, ...]) -> nn.Sequential:
    model = nn.Sequential(*layers, dtype="float64").build(input_shape)
    model.bind(np.empty(0))
    return model


def naive(x: Array, case: Case, layer: Pool) -> Array:
    """Window by window, with -inf or 0 around the image."""
    (kh, kw), (sh, sw), (ph, pw) = case.kernel, case.stride, case.padding
    fill = -np.inf if isinstance(layer, nn.MaxPool2d) else 0.0
    x = np.pad(x, [(0, 0), (ph, ph), (pw, pw), (0, 0)], constant_values=fill)
    y = np.empty((len(x), (x.shape[1] - kh) // sh + 1, (x.shape[2] - kw) // sw + 1, x.shape[3]))
    for i in range(y.shape[1]):
        for j in range(y.shape[2]):
            window = x[:, i * sh : i * sh + kh, j * sw : j * sw + kw]
            y[:, i, j] = window.max(axis=(1, 2)) if isinstance(layer, nn.MaxPool2d) else window.mean(axis=(1, 2))
    return y


@pytest.mark.parametrize("kind", [nn.MaxPool2d, nn.AvgPool2d])
@given(case=cases())
def test_pooling_is_that_of_plain_loops(kind: type[Pool], case: Case) -> None:
    layer = kind(case.kernel, case.stride, case.padding)
    x = case.input()
    assert_close(built(layer, input_shape=case.shape[1:]).forward(x), naive(x, case, layer), 1e-14)


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_backward_agrees_with_finite_differences(layer: nn.Layer, rng: np.random.Generator) -> None:
    x = rng.permutation(2 * 6 * 7 * 5).reshape(2, 6, 7, 5) / 100
    check_backward(built(layer, input_shape=x.shape[1:]), x, rng)


@pytest.mark.parametrize("kind", [nn.MaxPool2d, nn.AvgPool2d])
@given(case=cases())
@pytest.mark.peer
def test_pooling_and_its_gradient_are_those_of_pytorch(kind: type[Pool], case: Case) -> None:
    torch = pytest.importorskip("torch")
    peer = {nn.MaxPool2d: torch.nn.functional.max_pool2d, nn.AvgPool2d: torch.nn.functional.avg_pool2d}[kind]
    model = built(kind(case.kernel, case.stride, case.padding), input_shape=case.shape[1:])
    x = case.input()
    y = model.forward(x)
    dy = np.random.default_rng(case.seed).standard_normal(y.shape)
    peer_x = torch.tensor(x, requires_grad=True)
    peer_y = peer(peer_x.permute(0, 3, 1, 2), case.kernel, case.stride, case.padding).permute(0, 2, 3, 1)
    peer_y.backward(torch.tensor(dy))
    assert_close(y, peer_y.detach().numpy(), 1e-14)
    assert_close(model.backward(dy), peer_x.grad.numpy(), 1e-12)


def test_nan_is_the_maximum_of_its_window() -> None:
    x = np.arange(16.0).reshape(1, 4, 4, 1)
    x[0, 0, 1] = np.nan
    model = built(nn.MaxPool2d(2), input_shape=(4, 4, 1))
    y = model.forward(x)[0, :, :, 0]
    assert np.isnan(y[0, 0])
    assert y.ravel()[1:].tolist() == [7, 13, 15]
    assert model.backward(np.ones((1, 2, 2, 1)))[0, :2, :2, 0].tolist() == [[0, 1], [0, 0]]


def test_the_mean_over_an_image_is_that_of_numpy(rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 4, 5, 6))
    assert_close(built(nn.GlobalAvgPool2d(), input_shape=(4, 5, 6)).forward(x), x.mean(axis=(1, 2)), 1e-14)


def test_images_in_channels_first_order_are_taken_as_such(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 4, 5))
    model = built(nn.Reshape((3, 4, 5)), nn.FromNCHW(), input_shape=(60,))
    assert (model.forward(x.reshape(2, 60)) == np.moveaxis(x, 1, 3)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.MaxPool2d(2, padding=2), "MaxPool2d.*at most half"),
        (lambda: nn.AvgPool2d(0), "kernel_size=0"),
        (lambda: nn.MaxPool2d(9), "9x9 don't fit into images of 8x8"),
        (lambda: nn.MaxPool2d(2, stride=(1, 2, 3)), r"stride=\(1, 2, 3\)"),
    ],
)
def test_pooling_that_makes_no_sense_is_refused(make: Callable[[], nn.Layer], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        built(make(), input_shape=(8, 8, 1))


def test_rows_are_no_images() -> None:
    for layer in (nn.MaxPool2d(2), nn.AvgPool2d(2), nn.GlobalAvgPool2d()):
        with pytest.raises(ValueError, match="takes images"):
            built(layer, input_shape=(64,))
