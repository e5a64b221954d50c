"""The ReLU family as functions, derivatives and layers: against plain NumPy, finite differences and PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from math import erf
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_relu import activations, nn
from dist_relu.nn.layers.activations import Elementwise
from tests.cases import long
from tests.gradients import check_fused
from tests.twin import Array


def _sigmoid(x: Array) -> Array:
    result: Array = np.exp(-np.logaddexp(0, -x))
    return result


def _elu(x: Array, alpha: float = 1.0, scale: float = 1.0, width: float = 1.0) -> Array:
    return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / width))


def _softmax(x: Array, dim: int = -1) -> Array:
    e = np.exp(x - x.max(axis=dim, keepdims=True))
    result: Array = e / e.sum(axis=dim, keepdims=True)
    return result


def _gate(function: Callable[[Array], Array]) -> Callable[..., Array]:
    def twin(x: Array, dim: int = -1) -> Array:
        a, b = np.split(x, 2, axis=dim)
        return a * function(b)

    return twin


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


# What each function is, to be believed at sight; arguments by the names of PyTorch.
ELEMENTWISE: dict[str, tuple[Callable[..., Array], dict[str, Any]]] = {
    "relu": (_relu, {}),
    "leaky_relu": (lambda x, negative_slope: np.where(x > 0, x, negative_slope * x), {"negative_slope": 0.1}),
    "prelu": (lambda x, weight: np.where(x > 0, x, weight * x), {"weight": 0.3}),
    "rrelu": (lambda x, lower, upper: np.where(x > 0, x, (lower + upper) / 2 * x), {"lower": 0.1, "upper": 0.4}),
    "relu6": (lambda x: np.clip(x, 0, 6), {}),
    "threshold": (
        lambda x, threshold, value: np.where(x > threshold, x, 0 * x + value),
        {"threshold": 0.4, "value": -2.0},
    ),
    "squared_relu": (lambda x: _relu(x) ** 2, {}),
    "elu": (_elu, {"alpha": 0.7}),
    "selu": (lambda x: _elu(x, 1.6732632423543772, 1.0507009873554805), {}),
    "celu": (lambda x, alpha: _elu(x, alpha, width=alpha), {"alpha": 0.5}),
    "gelu": (lambda x: x * (1 + np.vectorize(erf, otypes=[float])(x / np.sqrt(2))) / 2, {}),
    "silu": (lambda x: x * _sigmoid(x), {}),
    "mish": (lambda x: x * np.tanh(np.logaddexp(0, x)), {}),
    "softplus": (lambda x, beta: np.where(beta * x > 20, x, np.logaddexp(0, beta * x) / beta), {"beta": 1.5}),
    "hardswish": (lambda x: x * np.clip(x + 3, 0, 6) / 6, {}),
    "hardsigmoid": (lambda x: np.clip(x + 3, 0, 6) / 6, {}),
    "hardtanh": (lambda x, **bounds: x.clip(*bounds.values()), {"min_val": -0.5, "max_val": 2.0}),
    "sigmoid": (_sigmoid, {}),
    "tanh": (np.tanh, {}),
}
ROWWISE: dict[str, Callable[..., Array]] = {
    "crelu": lambda x, dim=-1: np.concatenate([_relu(x), _relu(-x)], axis=dim),
    "softmax": _softmax,
    "log_softmax": lambda x, dim=-1: np.log(_softmax(x, dim)),
    "glu": _gate(_sigmoid),
    "reglu": _gate(_relu),
    "swiglu": _gate(lambda x: x * _sigmoid(x)),
}
LAYERS: list[Callable[[], nn.Layer]] = [
    nn.ReLU,
    lambda: nn.LeakyReLU(0.1),
    nn.PReLU,
    lambda: nn.PReLU(6, init=0.1),
    nn.RReLU,
    nn.ReLU6,
    lambda: nn.Threshold(0.3, 0.3),
    nn.CReLU,
    nn.SquaredReLU,
    lambda: nn.ELU(0.7),
    nn.SELU,
    lambda: nn.CELU(0.7),
    nn.GELU,
    lambda: nn.GELU("tanh"),
    nn.SiLU,
    nn.Mish,
    lambda: nn.Softplus(1.5),
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Hardtanh,
    nn.Sigmoid,
    nn.Tanh,
    nn.Softmax,
    nn.LogSoftmax,
    nn.GLU,
    nn.ReGLU,
    nn.SwiGLU,
]
OF_A_LOOP = nn.ReLU, nn.Hardtanh, nn.GELU, nn.LeakyReLU
"""One for each loop behind a dense layer: it keeps outputs or inputs, with arguments of the function or without."""
IN_LOOPS_OF_OTHERS = [make for make in LAYERS if isinstance(make(), Elementwise) and type(make()) not in OF_A_LOOP]
DTYPES = ["float32", "float64"]
SHAPES = [(), (0,), (1,), (37,), (3, 0, 2), (5, 6), (2, 3, 4, 6)]

every_function = pytest.mark.parametrize("name", ELEMENTWISE)
every_layer = pytest.mark.parametrize("make", LAYERS, ids=lambda make: repr(make()))
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)


def call(name: str, x: Any, **arguments: Any) -> Array:
    result: Array = getattr(activations, name)(x, **arguments)
    return result


def tolerance(dtype: str) -> dict[str, Any]:
    return {"rtol": 1e-5, "atol": 1e-6} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-13}


@both_dtypes
@every_function
def test_functions_are_those_of_plain_numpy(name: str, dtype: str, rng: np.random.Generator) -> None:
    twin, arguments = ELEMENTWISE[name]
    for shape in SHAPES:
        x = (4 * rng.standard_normal(shape)).astype(dtype)
        y = call(name, x, **arguments)
        assert (y.dtype, y.shape) == (x.dtype, shape)
        np.testing.assert_allclose(y, twin(x.astype("float64"), **arguments), **tolerance(dtype))


@both_dtypes
@pytest.mark.parametrize("dim", [-1, 0, 1])
@pytest.mark.parametrize("name", ROWWISE)
def test_functions_along_an_axis_are_those_of_plain_numpy(
    name: str, dim: int, dtype: str, rng: np.random.Generator
) -> None:
    for shape in [(4, 6, 2), (2, 8, 150), (3, 2, 0)] if dim == -1 else [(4, 6, 2), (2, 70, 3)]:
        x = (4 * rng.standard_normal(shape)).astype(dtype)
        y = call(name, x, dim=dim)
        assert y.dtype == dtype
        if x.size:
            np.testing.assert_allclose(y, ROWWISE[name](x.astype("float64"), dim), **tolerance(dtype))


@given(st.integers(0, 2**32 - 1))
@every_function
def test_derivatives_agree_with_finite_differences(name: str, seed: int) -> None:
    _, arguments = ELEMENTWISE[name]
    x = 3 * np.random.default_rng(seed).standard_normal(60)
    difference = (call(name, x + 1e-6, **arguments) - call(name, x - 1e-6, **arguments)) / 2e-6
    smooth = np.abs(difference - (call(name, x + 1e-5, **arguments) - call(name, x - 1e-5, **arguments)) / 2e-5) < 1e-4
    y, derivative = activations.value_and_derivative(name, x, **arguments)
    np.testing.assert_allclose(derivative[smooth], difference[smooth], rtol=1e-6, atol=1e-8)
    assert smooth.sum() > 55
    assert (y == call(name, x, **arguments)).all()
    assert (derivative == activations.derivative(name, x, **arguments)).all()


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_the_derivative_of_softmax_is_its_jacobian(name: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 4))
    jacobian = activations.derivative(name, x)
    for j in range(4):
        step = 1e-6 * np.eye(4)[j]
        difference = (call(name, x + step) - call(name, x - step)) / 2e-6
        np.testing.assert_allclose(jacobian[:, :, j], difference, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["glu", "reglu", "swiglu"])
def test_the_derivative_of_a_gate_is_that_of_the_output_that_an_element_enters(
    name: str, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((3, 8))
    derivative = activations.derivative(name, x)
    for half in range(2):
        step = np.zeros(8)
        step[4 * half : 4 * half + 4] = 1e-6
        difference = (call(name, x + step) - call(name, x - step)) / 2e-6
        np.testing.assert_allclose(derivative[:, 4 * half : 4 * half + 4], difference, rtol=1e-6, atol=1e-9)


def test_the_derivative_of_crelu_has_the_shape_of_its_output() -> None:
    assert activations.derivative("crelu", np.array([2.0, -3.0, 0.0])).tolist() == [1, 0, 0, 0, -1, 0]


@both_dtypes
@every_function
def test_nan_goes_through(name: str, dtype: str) -> None:
    assert np.isnan(call(name, np.full(20, np.nan, dtype), **ELEMENTWISE[name][1])).all()


@both_dtypes
@pytest.mark.parametrize("name", ROWWISE)
def test_nan_goes_through_along_an_axis(name: str, dtype: str) -> None:
    x = np.zeros((2, 40), dtype)
    x[0] = np.nan
    y = call(name, x)
    assert np.isnan(y[0]).all()
    assert np.isfinite(y[1]).all()


@both_dtypes
@every_function
def test_infinities_and_huge_numbers_have_the_limits_of_the_function(name: str, dtype: str) -> None:
    _, arguments = ELEMENTWISE[name]
    huge = np.finfo(dtype).max
    y, derivative = activations.value_and_derivative(name, np.array([-np.inf, np.inf, -huge, huge], dtype), **arguments)
    far, slopes = activations.value_and_derivative(name, np.array([-1e4, 1e4], dtype), **arguments)
    expected = {True: np.inf, False: far[1]}[bool(far[1] > 1e3)]
    if name in ("leaky_relu", "prelu", "rrelu"):
        far[0] = -np.inf
    if name == "squared_relu":
        slopes[1] = np.inf
    assert y[:2].tolist() == [far[0], expected]
    assert not np.isnan(y).any()
    np.testing.assert_array_equal(derivative[:2], slopes)


@both_dtypes
def test_relu_turns_negative_zero_positive_and_keeps_denormals(dtype: str) -> None:
    tiny = np.finfo(dtype).smallest_subnormal
    y, derivative = activations.value_and_derivative("relu", np.array([-0.0, 0.0, tiny, -tiny], dtype))
    assert y.tolist() == [0, 0, tiny, 0]
    assert not np.signbit(y).any()
    assert derivative.tolist() == [0, 0, 1, 0]


@both_dtypes
def test_tails_keep_their_digits_down_to_denormals(dtype: str) -> None:
    x = np.linspace(-np.log(np.finfo(dtype).max) + 3, -5, 200).astype(dtype)
    exact = np.exp(x.astype(np.longdouble))
    rtol = 1e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(activations.sigmoid(x), exact / (1 + exact), rtol=rtol)
    np.testing.assert_allclose(activations.softplus(x), np.log1p(exact), rtol=rtol)
    np.testing.assert_allclose(activations.silu(x), x * (exact / (1 + exact)), rtol=2 * rtol)
    tiny = np.finfo(dtype).smallest_subnormal
    below = np.array([np.log(float(tiny)) + 1], dtype)
    assert activations.sigmoid(below)[0] in (2 * tiny, 3 * tiny)


@both_dtypes
def test_the_least_numbers_go_through_odd_functions(dtype: str) -> None:
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([tiny, -tiny, 0.0, -0.0], dtype)
    y = activations.tanh(x)
    assert (y == x).all()
    assert (np.signbit(y) == np.signbit(x)).all()
    assert (activations.elu(x) == x).all()


def test_softmax_of_huge_numbers_does_not_overflow() -> None:
    assert activations.softmax(np.array([1e30, -1e30, 0], np.float32)).tolist() == [1, 0, 0]
    assert activations.log_softmax(np.array([1e4, 0, -1e4], np.float32)).tolist() == [0, -1e4, -2e4]


def test_arrays_need_not_be_contiguous(rng: np.random.Generator) -> None:
    x = rng.standard_normal((8, 6, 4))[::-2, ::3].T
    for name, (_, arguments) in ELEMENTWISE.items():
        before = x.copy()
        assert (call(name, x, **arguments) == call(name, x.copy(), **arguments)).all()
        assert (x == before).all()


def test_prelu_takes_a_weight_of_each_channel(rng: np.random.Generator) -> None:
    x, weight = rng.standard_normal((50, 7, 3)), rng.standard_normal(3)
    y, derivative = activations.value_and_derivative("prelu", x, weight=weight)
    assert (y == np.where(x > 0, x, weight * x)).all()
    assert (derivative == np.where(x > 0, 1, weight)).all()


def test_rrelu_draws_slopes_in_training(rng: np.random.Generator) -> None:
    x = -np.ones(10_000)
    y = activations.rrelu(x, 0.2, 0.4, training=True, rng=rng)
    assert -0.4 < y.min() < -0.399
    assert -0.201 < y.max() <= -0.2
    assert -y.mean() == pytest.approx(0.3, abs=0.003)


@pytest.mark.parametrize(
    ("error", "message", "make"),
    [
        (
            TypeError,
            r"relu computes in float32 or float64, not in float16",
            lambda: call("relu", np.ones(2, "float16")),
        ),
        (TypeError, r"gelu computes in .* not in int64", lambda: call("gelu", [1, 2])),
        (TypeError, r"softmax computes in .* not in object", lambda: call("softmax", np.array([None]))),
        (ValueError, r'expected "none" or "tanh"', lambda: call("gelu", [1.0], approximate="erf")),
        (ValueError, r"weight has 2 elements; expected 1, or 3", lambda: call("prelu", np.ones(3), weight=[1.0, 2.0])),
        (ValueError, r"Pass rng=", lambda: call("rrelu", np.ones(3), training=True)),
        (ValueError, r"into halves, but axis dim=-1 has 3 elements", lambda: call("glu", np.ones(3))),
        (ValueError, r"softmax works along an axis", lambda: call("softmax", 1.0)),
        (ValueError, r"No activation is called 'rely'. There are .*relu6", lambda: activations.derivative("rely", 1.0)),
        (TypeError, r"elu\(\): .*'beta'", lambda: activations.derivative("elu", 1.0, beta=2)),
        (ValueError, r"min_val must be smaller", lambda: nn.Hardtanh(1, -1)),
        (ValueError, r"lower must not be above upper", lambda: nn.RReLU(0.5, 0.1)),
        (ValueError, r"must be above 0", lambda: nn.CELU(0)),
        (ValueError, r"divides by zero", lambda: nn.Softplus(0)),
        (ValueError, r"PReLU\(num_parameters=0\): must be at least 1", lambda: nn.PReLU(0)),
        (ValueError, r"does not suit samples of shape \(3,\)", lambda: nn.PReLU(2).build((3,))),
        (ValueError, r"SwiGLU takes samples apart into halves", lambda: nn.SwiGLU().build((4, 3))),
    ],
)
def test_what_makes_no_sense_is_refused(error: type[Exception], message: str, make: Callable[[], object]) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("shape", [(6,), (3, 2, 6)], ids=str)
@every_layer
def test_backward_of_layers_agrees_with_finite_differences(
    make: Callable[[], nn.Layer], shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    model = nn.Sequential(make(), dtype="float64").build(shape).initialize()
    x = 2 * rng.standard_normal((40, *shape))

    def output() -> Array:
        return model.forward(x, nn.PlainPass(training=True, seed=3))

    y = output()
    assert y.shape == (40, *model.output_shape)
    dy = rng.standard_normal(y.shape)
    before = dy.copy()
    dx = model.backward(dy, nn.PlainPass(training=True))
    assert (dy == before).all()
    gradients = [param.grad.copy() for param in model.params]
    pairs = [(x, dx), *((param.value, gradient) for param, gradient in zip(model.params, gradients, strict=True))]
    for array, gradient in pairs:
        step = 1e-7 * rng.choice([-1.0, 1.0], array.shape)
        np.add(array, step, out=array)
        above = (output() * dy).sum()
        np.subtract(array, 2 * step, out=array)
        below = (output() * dy).sum()
        np.add(array, step, out=array)
        assert (gradient * step).sum() == pytest.approx((above - below) / 2, rel=1e-5, abs=1e-13)


@every_layer
def test_evaluation_of_layers_is_the_function(make: Callable[[], nn.Layer], rng: np.random.Generator) -> None:
    layer = make()
    x = rng.standard_normal((5, 6))
    arguments = {key: value for key, value in vars(layer).items() if not key.startswith("_") and key != "weight"}
    name = {"LeakyReLU": "leaky_relu", "SquaredReLU": "squared_relu", "LogSoftmax": "log_softmax"}.get(
        type(layer).__name__, type(layer).__name__.lower()
    )
    if isinstance(layer, nn.PReLU):
        arguments = {"weight": layer.init}
    model = nn.Sequential(layer, dtype="float64").build((6,)).initialize()
    assert (model.forward(x) == call(name, x, **arguments)).all()


@both_dtypes
@pytest.mark.parametrize(
    "make",
    [*(make for make in LAYERS if make not in IN_LOOPS_OF_OTHERS), *long(*IN_LOOPS_OF_OTHERS)],
    ids=lambda make: repr(make()),
)
def test_a_dense_layer_fused_with_an_activation_gives_the_bits_of_both(
    make: Callable[[], nn.Layer], dtype: str, rng: np.random.Generator
) -> None:
    layers = nn.Dense(6), make()
    model = nn.Sequential(*layers, dtype=dtype).build((20,)).initialize()
    model.bind(rng.standard_normal(model.num_params).astype(dtype))
    check_fused(model, rng.standard_normal((9, 20)).astype(dtype), rng)


@every_layer
def test_layers_describe_themselves(make: Callable[[], nn.Layer]) -> None:
    model = nn.Sequential(make()).build((6,)).initialize()
    model.forward(np.ones((2, 6), np.float32))
    assert repr(model.blueprint()) == repr(nn.Sequential(make()))


def test_rrelu_draws_anew_in_every_pass_and_the_same_for_a_seed() -> None:
    x = -np.ones((4, 50), np.float32)
    layer = nn.RReLU()
    run = nn.PlainPass(training=True, seed=1)
    first, second = layer.forward(x, run), layer.forward(x, run)
    assert (first != second).any()
    assert (first == layer.forward(x, nn.PlainPass(training=True, seed=1))).all()


TORCH_NAMES = [name for name in [*ELEMENTWISE, *ROWWISE] if name not in ("crelu", "squared_relu", "reglu", "swiglu")]


@pytest.mark.parametrize("name", TORCH_NAMES)
@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    dtype=st.sampled_from(DTYPES),
    scale=st.sampled_from([0.1, 1.0, 3.0]),
    seed=st.integers(0, 2**32 - 1),
)
@pytest.mark.peer
def test_functions_and_gradients_are_those_of_pytorch(
    name: str, shape: list[int], dtype: str, scale: float, seed: int
) -> None:
    torch = pytest.importorskip("torch")
    _, arguments = ELEMENTWISE.get(name, (None, {}))
    if name in ROWWISE:
        arguments, shape = {"dim": -1}, [*shape, 6]
    rng = np.random.default_rng(seed)
    x = (scale * rng.standard_normal(shape)).astype(dtype)
    their_arguments = {"weight": torch.tensor([0.3], dtype=getattr(torch, dtype))} if name == "prelu" else arguments
    their_x = torch.from_numpy(x.copy()).requires_grad_()
    their_y = getattr(torch.nn.functional, name)(their_x, **their_arguments)
    np.testing.assert_allclose(call(name, x, **arguments), their_y.detach().numpy(), **tolerance(dtype))
    if name in ("softmax", "log_softmax", "glu"):
        layer = {"softmax": nn.Softmax(), "log_softmax": nn.LogSoftmax(), "glu": nn.GLU()}[name]
        layer.forward(x)
        dy = rng.standard_normal(their_y.shape).astype(dtype)
        their_y.backward(torch.from_numpy(dy))
        dx = layer.backward(dy)
    else:
        their_y.sum().backward()
        dx = activations.derivative(name, x, **arguments)
    precision = "float32" if name == "hardsigmoid" else dtype  # PyTorch's slope of it is 1/6 in float32
    np.testing.assert_allclose(dx, their_x.grad.numpy(), **tolerance(precision))


@both_dtypes
@pytest.mark.peer
def test_slopes_at_kinks_are_those_of_pytorch(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    x = np.array([-6, -3, -1, -0.5, 0.0, -0.0, 0.4, 1, 2, 3, 6], dtype)
    for name in TORCH_NAMES:
        if name in ROWWISE or name in ("prelu", "hardsigmoid"):
            continue
        _, arguments = ELEMENTWISE[name]
        their_x = torch.from_numpy(x.copy()).requires_grad_()
        getattr(torch.nn.functional, name)(their_x, **arguments).sum().backward()
        derivative = activations.derivative(name, x, **arguments)
        np.testing.assert_allclose(derivative, their_x.grad.numpy(), **tolerance(dtype), err_msg=name)
