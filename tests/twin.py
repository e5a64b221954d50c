"""The same mathematics in plain NumPy, in float64, to be believed at sight."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    total: Array = e / e.sum(axis=1, keepdims=True)
    return total


def cross_entropy(z: Array, labels: Array) -> float:
    return float(-np.log(softmax(z)[np.arange(len(z)), labels]).mean())


class Mlp:
    """Dense layers with ReLU between them, trained with momentum on the cross-entropy."""

    def __init__(self, params: list[Array]) -> None:
        self.weights = [param.astype(np.float64) for param in params[0::2]]
        self.biases = [param.astype(np.float64) for param in params[1::2]]
        self.velocities = [np.zeros_like(p) for p in self.weights + self.biases]

    def forward(self, x: Array) -> list[Array]:
        outputs = [x.astype(np.float64)]
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = outputs[-1] @ weight + bias
            outputs.append(z if i == len(self.weights) - 1 else np.maximum(z, 0))
        return outputs

    def gradients(self, x: Array, labels: Array) -> list[Array]:
        """Of all weights, then of all biases."""
        outputs = self.forward(x)
        dz = softmax(outputs[-1])
        dz[np.arange(len(x)), labels] -= 1
        dz /= len(x)
        d_weights, d_biases = [], []
        for weight, before in zip(self.weights[::-1], outputs[-2::-1], strict=True):
            d_weights.append(before.T @ dz)
            d_biases.append(dz.sum(axis=0))
            dz = (dz @ weight.T) * (before > 0)
        return d_weights[::-1] + d_biases[::-1]

    def step(self, x: Array, labels: Array, lr: float, momentum: float) -> float:
        """Take a step; returns the loss before it."""
        loss = cross_entropy(self.forward(x)[-1], labels)
        for p, v, g in zip(self.weights + self.biases, self.velocities, self.gradients(x, labels), strict=True):
            v[...] = momentum * v + g
            p[...] = p - lr * v
        return loss


def assert_close(ours: Array, expected: Array, tolerance: float) -> None:
    """Equal up to `tolerance` times the largest number expected: sums may cancel."""
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * max(np.abs(expected).max(initial=0), 1))
