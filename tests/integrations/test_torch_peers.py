"""Networks of PyTorch, by its own exporter and by its weights, as models that compute the same."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from dist_relu import nn
from dist_relu.integrations.onnx import import_model
from dist_relu.integrations.torch_weights import load_state_dict
from tests.twin import Array


def networks(torch: Any) -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Networks, and the shapes of their samples."""
    t = torch.nn

    class Block(t.Module):  # type: ignore[name-defined]
        """As torchvision's BasicBlock."""

        def __init__(self, channels: int, filters: int, stride: int) -> None:
            super().__init__()
            self.conv1 = t.Conv2d(channels, filters, 3, stride, 1, bias=False)
            self.bn1 = t.BatchNorm2d(filters)
            self.conv2 = t.Conv2d(filters, filters, 3, 1, 1, bias=False)
            self.bn2 = t.BatchNorm2d(filters)
            self.down = None
            if stride > 1:
                self.down = t.Sequential(t.Conv2d(channels, filters, 1, stride, bias=False), t.BatchNorm2d(filters))

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            y += x if self.down is None else self.down(x)
            return torch.relu(y)

    class LastState(t.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.rnn = t.RNN(3, 6, nonlinearity="relu", batch_first=True)
            self.out = t.Linear(6, 2)

        def forward(self, x: Any) -> Any:
            states, _ = self.rnn(x)
            return self.out(states[:, -1])

    class Viewed(t.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.features = t.Sequential(t.Conv2d(3, 4, 3, groups=1), t.PReLU(4), t.AvgPool2d(2))
            self.classifier = t.Sequential(t.Dropout(), t.Linear(4 * 9, 5), t.Hardswish(), t.Linear(5, 3))

        def forward(self, x: Any) -> Any:
            x = self.features(x)
            return self.classifier(x.view(x.size(0), -1))

    return {
        "resnet": (
            t.Sequential(
                t.Conv2d(3, 8, 7, 2, 3, bias=False),
                t.BatchNorm2d(8),
                t.ReLU(),
                t.MaxPool2d(3, 2, 1),
                Block(8, 8, 1),
                Block(8, 16, 2),
                t.AdaptiveAvgPool2d(1),
                t.Flatten(),
                t.Linear(16, 10),
            ),
            (3, 32, 32),
        ),
        "mobile": (
            t.Sequential(
                t.Conv2d(3, 8, 3, 2, 1),
                t.ReLU6(),
                t.Conv2d(8, 8, 3, 1, 1, groups=8),
                t.Hardswish(),
                t.Conv2d(8, 12, 1),
                t.SiLU(),
                t.Flatten(),
                t.Linear(12 * 16, 4),
                t.Softmax(1),
            ),
            (3, 8, 8),
        ),
        "mlp": (
            t.Sequential(
                *(t.Linear(6, 8), t.GELU(), t.LayerNorm(8), t.Linear(8, 8), t.Mish(), t.Linear(8, 8), t.GLU()),
                *(t.BatchNorm1d(4), t.CELU(0.5), t.Linear(4, 4), t.Softplus(), t.Linear(4, 3), t.LogSoftmax(-1)),
            ),
            (6,),
        ),
        "recurrence": (LastState(), (5, 3)),
        "viewed": (Viewed(), (3, 8, 8)),
    }


def network(torch: Any, name: str) -> tuple[Any, Array, Array]:
    """A network with running statistics of its own, samples, and what it makes of them."""
    torch.manual_seed(1)
    made, shape = networks(torch)[name]
    made.train()
    with torch.no_grad():
        made(torch.randn(16, *shape))
        made.eval()
        x = torch.randn(4, *shape)
        return made, x.numpy(), made(x).numpy()


@pytest.mark.peer
@pytest.mark.parametrize("name", ["resnet", "mobile", "mlp", "recurrence", "viewed"])
@pytest.mark.parametrize("opset", [13, 17, 20])
def test_what_torch_exports_computes_the_same(name: str, opset: int, tmp_path: Path) -> None:
    import torch

    made, x, y = network(torch, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, which says that it is not the newest
        torch.onnx.export(
            made,
            (torch.from_numpy(x),),
            str(tmp_path / "a.onnx"),
            opset_version=opset,
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "N"}},
        )
    model = import_model(tmp_path / "a.onnx")
    np.testing.assert_allclose(model.forward(x), y, rtol=0, atol=1e-6 * max(1, np.abs(y).max()))


OURS: dict[str, tuple[list[nn.Layer], tuple[int, ...], dict[str, str]]] = {
    "resnet": (
        [
            *(nn.FromNCHW(), nn.Conv2d(8, 7, 2, 3, bias=False), nn.BatchNorm(), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
            nn.Residual(
                [
                    *(nn.Conv2d(8, 3, padding=1, bias=False), nn.BatchNorm(), nn.ReLU()),
                    *(nn.Conv2d(8, 3, padding=1, bias=False), nn.BatchNorm()),
                ]
            ),
            nn.ReLU(),
            nn.Residual(
                [
                    *(nn.Conv2d(16, 3, 2, 1, bias=False), nn.BatchNorm(), nn.ReLU()),
                    *(nn.Conv2d(16, 3, padding=1, bias=False), nn.BatchNorm()),
                ],
                [nn.Conv2d(16, 1, 2, 0, bias=False), nn.BatchNorm()],
            ),
            *(nn.ReLU(), nn.GlobalAvgPool2d(), nn.Dense(10)),
        ],
        (3, 32, 32),
        {"2": "1", "5.body.1": "4.bn1", "5.body.4": "4.bn2"}
        | {"7.body.1": "5.bn1", "7.body.4": "5.bn2", "7.shortcut.1": "5.down.1"},
    ),
    "recurrence": ([nn.RNN(6), nn.Dense(2)], (5, 3), {}),
    "viewed": (
        [
            *(nn.FromNCHW(), nn.Conv2d(4, 3, padding=0), nn.PReLU(4), nn.AvgPool2d(2), nn.Flatten(), nn.Dropout()),
            *(nn.Dense(5), nn.Hardswish(), nn.Dense(3)),
        ],
        (3, 8, 8),
        {},
    ),
}


@pytest.mark.peer
@pytest.mark.parametrize("name", OURS)
def test_weights_of_torch_compute_the_same(name: str, tmp_path: Path) -> None:
    import torch

    made, x, y = network(torch, name)
    save_file({key: value.numpy() for key, value in made.state_dict().items()}, tmp_path / "a.safetensors")
    layers, shape, mapping = OURS[name]
    model = load_state_dict(nn.Sequential(*layers).build(shape), tmp_path / "a.safetensors", mapping)
    np.testing.assert_allclose(model.forward(x), y, rtol=0, atol=1e-6 * max(1, np.abs(y).max()))
