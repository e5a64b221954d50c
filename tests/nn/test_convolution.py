"""Convolution against plain loops, finite differences and PyTorch."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_relu import nn
from dist_relu.checkpoint import load_model, save_model
from dist_relu.nn.layers.windows import Padding
from tests.gradients import check_backward, check_fused
from tests.twin import Array, assert_close

LAYERS = [
    nn.Conv2d(4, 3),
    nn.Conv2d(4, 3, bias=False),
    nn.Conv2d(4, 1),
    nn.Conv2d(4, (2, 3), stride=2, padding="valid"),
    nn.Conv2d(4, 3, stride=(1, 2), padding=(2, 0), dilation=(1, 2)),
    nn.Conv2d(4, 3, groups=2),
    nn.Conv2d(8, 3, groups=4, stride=2),
    nn.Conv2d(4, 3, groups=4, stride=2, dilation=2, padding=2),
]


@dataclass(frozen=True)
class Case:
    """A convolution and its input.  height, width: the larger ones keep windows inside of the image."""

    num: int
    height: int
    width: int
    channels: int
    filters: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: Padding
    dilation: tuple[int, int]
    groups: int
    seed: int

    def layer(self) -> nn.Conv2d:
        return nn.Conv2d(self.filters, self.kernel, self.stride, self.padding, self.dilation, self.groups)


def pairs(least: int, most: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


PADDINGS: st.SearchStrategy[Padding] = st.one_of(
    st.just("same"), st.just("valid"), st.integers(0, 3), st.tuples(st.integers(0, 3), st.integers(0, 3))
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    kernel, dilation = draw(pairs(1, 4)), draw(pairs(1, 3))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    groups, depth, width = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 7])), draw(st.integers(1, 3))
    return Case(
        num=draw(st.integers(1, 4)),
        height=draw(st.integers(reach[0], reach[0] + 9)),
        width=draw(st.integers(reach[1], reach[1] + 9)),
        channels=groups * depth,
        filters=groups * width,
        kernel=kernel,
        stride=draw(pairs(1, 3)),
        padding=draw(PADDINGS),
        dilation=dilation,
        groups=groups,
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def built(*layers: nn.Layer, input_shape: tuple[int, ...], dtype: str = "float64") -> nn.Sequential:
    return nn.Sequential(*layers, dtype=dtype).build(input_shape).initialize(seed=1)


def sides(case: Case) -> list[tuple[int, int]]:
    """The padding before and after the image, by height and width; that of "same" from its definition."""
    margins = []
    for axis, size in enumerate((case.height, case.width)):
        if case.padding == "same":
            reach = case.dilation[axis] * (case.kernel[axis] - 1) + 1
            total = max((-(-size // case.stride[axis]) - 1) * case.stride[axis] + reach - size, 0)
            margins.append((total // 2, total - total // 2))
        elif case.padding == "valid":
            margins.append((0, 0))
        else:
            margin = case.padding if isinstance(case.padding, int) else int(case.padding[axis])
            margins.append((margin, margin))
    return margins


def naive(x: Array, weight: Array, bias: Array, case: Case) -> Array:
    """Cross-correlation, filter by filter and output by output."""
    x = np.pad(x, [(0, 0), *sides(case), (0, 0)])
    (kh, kw), (sh, sw), (dh, dw) = case.kernel, case.stride, case.dilation
    height, width = (x.shape[1] - dh * (kh - 1) - 1) // sh + 1, (x.shape[2] - dw * (kw - 1) - 1) // sw + 1
    depth, filters = weight.shape[2], case.filters // case.groups
    y = np.empty((len(x), height, width, case.filters))
    for k in range(case.filters):
        group = k // filters
        for i in range(height):
            for j in range(width):
                window = x[:, i * sh : i * sh + dh * kh : dh, j * sw : j * sw + dw * kw : dw]
                window = window[:, :kh, :kw, group * depth : (group + 1) * depth]
                y[:, i, j, k] = (window * weight[:, :, :, k]).sum(axis=(1, 2, 3)) + bias[k]
    return y


@given(cases())
def test_convolution_is_that_of_plain_loops(case: Case) -> None:
    model = built(case.layer(), input_shape=(case.height, case.width, case.channels))
    rng = np.random.default_rng(case.seed)
    weight, bias = (param.value for param in model.params)
    bias[:] = rng.standard_normal(bias.shape)
    x = rng.standard_normal((case.num, case.height, case.width, case.channels))
    y = model.forward(x)
    assert y.shape[1:] == model.output_shape
    assert_close(y, naive(x, weight, bias, case), 1e-12)


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_backward_agrees_with_finite_differences(layer: nn.Conv2d, rng: np.random.Generator) -> None:
    model = built(replace(layer), input_shape=(6, 5, 4))
    check_backward(model, rng.standard_normal((3, 6, 5, 4)), rng)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
@given(case=cases())
@pytest.mark.peer
def test_convolution_and_its_gradients_are_those_of_pytorch(dtype: str, tolerance: float, case: Case) -> None:
    torch = pytest.importorskip("torch")
    model = built(case.layer(), input_shape=(case.height, case.width, case.channels), dtype=dtype)
    rng = np.random.default_rng(case.seed)
    x = rng.standard_normal((case.num, case.height, case.width, case.channels)).astype(dtype)
    y = model.forward(x)
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx = model.backward(dy)
    weight, bias = (torch.tensor(param.value, requires_grad=True) for param in model.params)
    peer_x = torch.tensor(x, requires_grad=True)
    (top, bottom), (left, right) = sides(case)
    padded = torch.nn.functional.pad(peer_x.permute(0, 3, 1, 2), (left, right, top, bottom))
    peer_y = torch.nn.functional.conv2d(
        padded.contiguous(), weight.permute(3, 2, 0, 1).contiguous(), bias, case.stride, 0, case.dilation, case.groups
    ).permute(0, 2, 3, 1)
    peer_y.backward(torch.tensor(dy))
    assert_close(y, peer_y.detach().numpy(), tolerance)
    for ours, peer in zip([dx, *(p.grad for p in model.params)], [peer_x, weight, bias], strict=True):
        assert_close(ours, peer.grad.numpy(), tolerance)


@pytest.mark.parametrize("padding", ["same", "valid", (2, 0)])
@pytest.mark.parametrize(("size", "filters"), [((9, 10, 16), 48), ((15, 8, 48), 16)])
def test_filters_of_3x3_differ_by_rounding_alone_between_float32_and_float64(
    rng: np.random.Generator, size: tuple[int, int, int], filters: int, padding: Padding
) -> None:
    """In float32 they are convolved another way, see `dist_relu.kernels.winograd`."""
    narrow, wide = (
        built(nn.Conv2d(filters, 3, padding=padding), nn.ReLU(), input_shape=size, dtype=dtype)
        for dtype in ("float32", "float64")
    )
    for one, other in zip(narrow.params, wide.params, strict=True):
        one.value[...] = rng.standard_normal(one.shape)
        other.value[...] = one.value
    x = rng.standard_normal((30, *size)).astype(np.float32)
    pairs = [(narrow.forward(x), wide.forward(x))]
    dy = rng.standard_normal(pairs[0][0].shape).astype(np.float32)
    dy[(pairs[0][1] < 1e-3) & (pairs[0][1] > 0)] = 0  # where rounding may decide what ReLU does
    pairs += [(narrow.backward(dy), wide.backward(dy))]
    pairs += [(one.grad, other.grad) for one, other in zip(narrow.params, wide.params, strict=True)]
    for actual, expected in pairs:
        assert np.abs(actual - expected).max() < 2e-5 * np.sqrt(np.mean(expected**2))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [(28, 28, 1), (15, 17, 3), (9, 8, 40)])
def test_fused_layers_give_the_bits_of_single_ones(
    rng: np.random.Generator, size: tuple[int, int, int], dtype: str
) -> None:
    layers = nn.Conv2d(32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 3, stride=2), nn.ReLU(), nn.MaxPool2d(2, 1)
    model = built(*layers, input_shape=size, dtype=dtype)
    for param in model.params:
        param.value[...] = np.round(8 * rng.standard_normal(param.shape)) / 8  # so that maxima are reached twice
    x = np.round(rng.standard_normal((9, *size))).astype(dtype)
    check_fused(model, x, rng)


def test_a_piece_of_a_batch_has_the_bits_that_it_has_alone(rng: np.random.Generator) -> None:
    """Images are done a few at a time, and how many does not depend on how many there are."""
    model = built(nn.Conv2d(64, 3), input_shape=(14, 14, 32), dtype="float32")
    x = rng.standard_normal((121, 14, 14, 32)).astype(np.float32)
    assert (model.forward(x[:120]) == model.forward(x)[:120]).all()


def test_backward_leaves_its_argument_alone_and_takes_any_memory_order(rng: np.random.Generator) -> None:
    for layers in [(nn.Conv2d(4, 3),), (nn.Conv2d(4, 3), nn.ReLU()), (nn.Conv2d(4, 3), nn.ReLU(), nn.MaxPool2d(2))]:
        model = built(*layers, input_shape=(6, 6, 4))
        x = rng.standard_normal((3, 4, 6, 6)).transpose(0, 2, 3, 1)
        y = model.forward(x)
        assert (y == model.forward(np.ascontiguousarray(x))).all()
        dy = rng.standard_normal(y.shape[::-1]).T
        before = dy.copy()
        dx = model.backward(dy)
        assert (dy == before).all()
        assert (dx == model.backward(np.ascontiguousarray(dy))).all()


def test_no_images_give_no_outputs() -> None:
    model = nn.cnn((8, 8, 1), 10).build((64,)).initialize()
    assert model.forward(np.empty((0, 64), np.float32)).shape == (0, 10)


def test_nan_goes_through_fused_layers() -> None:
    model = built(nn.Conv2d(2, 1), nn.ReLU(), nn.MaxPool2d(2), input_shape=(4, 4, 1))
    x = np.zeros((1, 4, 4, 1))
    x[0, 1, 2] = np.nan
    assert np.isnan(model.forward(x)[0, :, :, 0]).tolist() == [[False, True], [False, False]]


def test_weights_and_sizes_are_those_of_the_docstring() -> None:
    model = built(nn.Conv2d(6, (3, 5), groups=2), input_shape=(9, 8, 4))
    assert [param.shape for param in model.params] == [(3, 5, 2, 6), (6,)]
    assert (model.params[0].fan_in, model.params[0].fan_out) == (30, 45)
    assert model.output_shape == (9, 8, 6)
    assert built(nn.Conv2d(6, 3, stride=2), input_shape=(9, 8, 4)).output_shape == (5, 4, 6)


def test_models_of_images_survive_pickling_and_saving(rng: np.random.Generator, tmp_path: Path) -> None:
    layers = nn.Reshape((3, 8, 8)), nn.FromNCHW(), nn.Conv2d(4, (3, 1), (1, 2), (1, 0)), nn.MaxPool2d((2, 1))
    for model in (nn.cnn((8, 8, 3), 5), nn.Sequential(*layers, nn.AvgPool2d(2), nn.GlobalAvgPool2d())):
        model.build((192,)).initialize()
        x = rng.standard_normal((2, 192)).astype(np.float32)
        save_model(model, tmp_path / "model.safetensors")
        for copy in (pickle.loads(pickle.dumps(model)), load_model(tmp_path / "model.safetensors")):
            assert (copy.forward(x) == model.forward(x)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv2d(0, 3), r"Conv2d\(channels=0\)"),
        (lambda: nn.Conv2d(4, 3, groups=0), r"Conv2d\(groups=0\)"),
        (lambda: built(nn.Conv2d(4, 3), input_shape=(64,)), r"Layer 0: Conv2d takes images.*begin with Reshape"),
        (lambda: built(nn.Conv2d(4, 3, groups=2), input_shape=(8, 8, 3)), r"can't cut 3 channels and 4 filters"),
        (lambda: built(nn.Conv2d(4, (3, 3, 3)), input_shape=(8, 8, 3)), r"kernel_size=\(3, 3, 3\)"),
        (lambda: built(nn.Conv2d(4, 3, stride=0), input_shape=(8, 8, 3)), r"stride=0"),
        (lambda: built(nn.Conv2d(4, 3, padding=-1), input_shape=(8, 8, 3)), r"padding=-1"),
        (lambda: built(nn.Conv2d(4, 5, padding="valid"), input_shape=(4, 9, 3)), r"5x5 don't fit into images of 4x9"),
        (lambda: built(nn.Reshape((8, 8, 1)), input_shape=(65,)), r"65 elements, not 64"),
        (lambda: built(nn.FromNCHW(), input_shape=(65,)), r"FromNCHW takes images"),
    ],
)
def test_convolutions_that_make_no_sense_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
