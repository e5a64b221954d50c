"""The slope of each activation at its kinks, at 0 and at NaN: that which its docstring states."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import numpy as np
import pytest

from dist_relu import activations, nn

_SELU = 1.0507009873554805 * 1.6732632423543772

SLOPES: list[tuple[nn.Layer, str, dict[str, Any], dict[float, float]]] = [
    (nn.ReLU(), "relu", {}, {0.0: 0, nan: 1}),
    (nn.LeakyReLU(0.2), "leaky_relu", {"negative_slope": 0.2}, {0.0: 0.2, nan: 0.2}),
    (nn.PReLU(init=0.25), "prelu", {"weight": 0.25}, {0.0: 0.25, nan: 0.25}),
    (nn.RReLU(0.1, 0.3), "rrelu", {"lower": 0.1, "upper": 0.3}, {0.0: 0.2, nan: 0.2}),
    (nn.ReLU6(), "relu6", {}, {0.0: 0, 6.0: 0, nan: 1}),
    (nn.Threshold(1.0, 5.0), "threshold", {"threshold": 1.0, "value": 5.0}, {0.0: 0, 1.0: 0, nan: 1}),
    (nn.SquaredReLU(), "squared_relu", {}, {0.0: 0, nan: nan}),
    (nn.ELU(0.5), "elu", {"alpha": 0.5}, {0.0: 0.5, nan: nan}),
    (nn.SELU(), "selu", {}, {0.0: _SELU, nan: nan}),
    (nn.CELU(0.5), "celu", {"alpha": 0.5}, {0.0: 1, nan: nan}),
    (nn.GELU(), "gelu", {}, {0.0: 0.5, nan: nan}),
    (nn.GELU("tanh"), "gelu", {"approximate": "tanh"}, {0.0: 0.5, nan: nan}),
    (nn.SiLU(), "silu", {}, {0.0: 0.5, nan: nan}),
    (nn.Mish(), "mish", {}, {0.0: 0.6, nan: nan}),
    (nn.Softplus(2.0), "softplus", {"beta": 2.0}, {0.0: 0.5, nan: nan}),
    (nn.Softplus(threshold=-1), "softplus", {"threshold": -1}, {0.0: 1, nan: nan}),
    (nn.Hardswish(), "hardswish", {}, {-3.0: 0, 0.0: 0.5, 3.0: 1, nan: nan}),
    (nn.Hardsigmoid(), "hardsigmoid", {}, {-3.0: 0, 0.0: 1 / 6, 3.0: 0, nan: 1 / 6}),
    (nn.Hardtanh(-2, inf), "hardtanh", {"min_val": -2, "max_val": inf}, {-2.0: 0, 0.0: 1, 9.0: 1, nan: 1}),
    (nn.Sigmoid(), "sigmoid", {}, {0.0: 0.25, nan: nan}),
    (nn.Tanh(), "tanh", {}, {0.0: 1, nan: nan}),
]


@pytest.mark.parametrize(("layer", "name", "arguments", "slopes"), SLOPES, ids=[name for _, name, *_ in SLOPES])
def test_slopes_are_those_that_are_stated(
    layer: nn.Layer, name: str, arguments: dict[str, Any], slopes: dict[float, float]
) -> None:
    x, expected = np.array(list(slopes)), np.array(list(slopes.values()))
    np.testing.assert_allclose(activations.derivative(name, x, **arguments), expected, rtol=1e-6)
    model = nn.Sequential(layer, dtype="float64").build((len(x),)).initialize(0)
    model.forward(x[np.newaxis])
    np.testing.assert_allclose(model.backward(np.ones((1, len(x))))[0], expected, rtol=1e-6)


def test_slopes_of_what_is_no_function_of_one_number() -> None:
    x = np.array([0.0, nan])
    assert activations.derivative("crelu", x).tolist() == [0.0, 1.0, -0.0, -1.0]
    assert activations.derivative("reglu", np.array([3.0, 3.0, 0.0, nan]))[:3:2].tolist() == [0.0, 0.0]
    assert activations.derivative("reglu", np.array([3.0, 3.0, 0.0, nan]))[3] == 3.0
    for name in ("glu", "swiglu"):
        assert np.isnan(activations.derivative(name, np.array([3.0, nan]))).all()
