"""Models that are drawn go to ONNX and back, by their graphs alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from dist_relu import nn
from dist_relu.integrations.onnx import import_model, to_onnx
from tests.cases import long
from tests.integrations.models import samples, with_numbers

Draw = np.random.Generator

ACTIVATIONS: list[Callable[[], nn.Layer]] = [
    *(nn.ReLU, nn.SiLU, nn.GELU, nn.SELU, nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Tanh, nn.Sigmoid, nn.PReLU),
    *(nn.SquaredReLU, nn.ReLU6, nn.Dropout, nn.Softmax, lambda: nn.GELU("tanh"), lambda: nn.Softplus(2.0)),
    *(lambda: nn.LeakyReLU(0.2), lambda: nn.Threshold(0.1, 0.2), lambda: nn.Hardtanh(-0.5, 0.7), lambda: nn.CELU(0.5)),
]
GATES: list[Callable[[], nn.Layer]] = [nn.GLU, nn.ReGLU, nn.SwiGLU]


def activation(rng: Draw) -> nn.Layer:
    return ACTIVATIONS[int(rng.integers(len(ACTIVATIONS)))]()


def of_rows(rng: Draw) -> list[nn.Layer]:
    """Layers from 6 numbers to 6."""
    match int(rng.integers(6)):
        case 0:
            return [nn.Residual([nn.Dense(6), activation(rng)]), activation(rng)]
        case 1:
            return [nn.Residual([nn.Dense(6), activation(rng)], [nn.Dense(6, bias=False)]), nn.LayerNorm()]
        case 2:
            return [nn.Dense(6, bias=False), nn.BatchNorm(), activation(rng)]
        case 3:
            return [nn.Dense(12), GATES[int(rng.integers(3))]()]
        case 4:
            return [nn.Parallel([[nn.Dense(2), activation(rng)], [nn.Dense(4, bias=False)]])]
        case _:
            return [nn.Dense(6), activation(rng)]


def of_images(rng: Draw) -> list[nn.Layer]:
    """Layers from 4 channels to 4."""
    match int(rng.integers(6)):
        case 0:
            return [nn.Residual([nn.Conv2d(4, 3, bias=False), nn.BatchNorm(), activation(rng)]), activation(rng)]
        case 1:
            return [nn.Residual([nn.Conv2d(4, 3), activation(rng)], [nn.Conv2d(4, 1)]), nn.MaxPool2d(2, 1)]
        case 2:
            return [nn.CReLU(), nn.Conv2d(4, 1)]
        case 3:
            return [nn.Conv2d(4, 3, groups=4), activation(rng)]
        case 4:
            return [nn.PReLU(4), nn.Standardize([0.1] * 4, [2.0] * 4)]
        case _:
            return [nn.Conv2d(4, (3, 1), padding=(1, 0)), nn.BatchNorm(), activation(rng)]


def drawn(rng: Draw) -> nn.Sequential:
    if rng.random() < 0.5:
        return nn.Sequential([layer for _ in range(3) for layer in of_rows(rng)]).build((6,))
    last = nn.Flatten() if rng.random() < 0.5 else nn.GlobalAvgPool2d()
    layers = [*(layer for _ in range(3) for layer in of_images(rng)), last, nn.Dense(3)]
    if rng.random() < 0.5:
        return nn.Sequential(nn.FromNCHW(), *layers).build((4, 7, 6))
    return nn.Sequential(layers).build((7, 6, 4))


@pytest.mark.parametrize("count", [5, *long(100)])
def test_drawn_models_come_back_without_metadata(count: int, tmp_path: Path) -> None:
    for seed in range(count):
        model = with_numbers(drawn(np.random.default_rng([seed, 7])))
        proto = to_onnx(model)
        del proto.metadata_props[:]
        onnx.save(proto, tmp_path / "model.onnx")
        back = import_model(tmp_path / "model.onnx")
        assert back.sha256() == model.sha256(), f"seed {seed}: {model}"
        x = samples(model)
        y = model.forward(x)
        np.testing.assert_allclose(back.forward(x), y, rtol=0, atol=2e-6 * max(1, np.abs(y).max()), err_msg=f"{seed}")
