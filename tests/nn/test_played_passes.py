"""A pass that was recorded can be played over other samples: nothing that it does is left to Python."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from dist_relu import nn, rl
from dist_relu.core.arrays import Array
from dist_relu.kernels.tape import Tapes, play
from dist_relu.nn.layers.activations import Elementwise
from dist_relu.nn.losses.composed import Weighted
from dist_relu.nn.passes import ShardPass, forward_backward, measure
from dist_relu.nn.structure import every_layer

N = 6
_ENTROPY = nn.CrossEntropy()
_IMAGES = (3, 4, 4)


@dataclass(eq=False)
class Scale(nn.Layer):
    """A layer of a user's own, who has never heard of kernels: y = w x, with noise on w."""

    weight: nn.Param = field(init=False, repr=False)
    _x: Array = field(init=False, repr=False)
    _noise: Array = field(init=False, repr=False)

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.weight = nn.Param("weight", input_shape, nn.Constant(2.0), 1, 1)
        return input_shape

    def params(self) -> Sequence[nn.Param]:
        return [self.weight]

    def forward(self, x: Array, run: nn.Pass = nn.PLAIN) -> Array:
        self._x, self._noise = run.empty(x.shape, x.dtype), run.generator().random(x.shape[1:])
        self._x[...] = x
        y: Array = (x * (self.weight.value + self._noise)).astype(x.dtype)
        return y

    def backward(self, dy: Array, run: nn.Pass = nn.PLAIN, *, wants_dx: bool = True) -> Array:
        self.weight.grad[...] = (dy * self._x).sum(axis=0)
        dx: Array = (dy * (self.weight.value + self._noise)).astype(dy.dtype)
        return dx


CASES: dict[str, tuple[list[nn.Layer], tuple[int, ...], nn.Loss]] = {
    "mlp": ([nn.Dense(7), nn.ReLU(), nn.Dense(7), nn.Tanh(), nn.Dense(4, bias=False)], (5,), _ENTROPY),
    "smoothed labels": ([nn.Dense(4), nn.GELU()], (5,), nn.CrossEntropy(label_smoothing=0.1)),
    "squared error": ([nn.Dense(4), nn.GELU()], (5,), nn.MeanSquaredError()),
    "absolute error": ([nn.Dense(4)], (5,), nn.MeanAbsoluteError()),
    "Huber loss": ([nn.Dense(4)], (5,), nn.Huber(0.5)),
    "labels": ([nn.Dense(4)], (5,), nn.BinaryCrossEntropy([1.0, 2.0, 3.0, 4.0])),
    "focal loss of labels": ([nn.Dense(4)], (5,), nn.Focal(alpha=0.25)),
    "focal loss of classes": ([nn.Dense(4)], (5,), Weighted(nn.Focal(), np.arange(1.0, N + 1))),
    "weighted samples": ([nn.Dense(4)], (5,), Weighted(nn.CrossEntropy(0.1), np.arange(1.0, N + 1))),
    "random slopes": ([nn.RReLU(), nn.Dense(6), nn.Dropout(0.4), nn.RReLU(), nn.Dense(4)], (5,), _ENTROPY),
    "learned slopes": ([nn.Dense(6), nn.PReLU(), nn.Dense(4), nn.PReLU(4)], (5,), _ENTROPY),
    "pairs": ([nn.Dense(8), nn.CReLU(), nn.SwiGLU(), nn.GLU(), nn.ReGLU(), nn.Dense(4)], (5,), _ENTROPY),
    "rows": ([nn.Dense(6), nn.Softmax(), nn.Dense(4), nn.LogSoftmax()], (5,), _ENTROPY),
    "standardized": ([nn.Dense(5), nn.Standardize([1.0] * 5, [2.0] * 5), nn.Dense(4)], (5,), _ENTROPY),
    "penalty": ([nn.Dense(5), nn.ReLU(), nn.ActivityPenalty(0.1), nn.LayerNorm(), nn.Dense(4)], (5,), _ENTROPY),
    "branches": (
        [nn.Dense(5), nn.Parallel([[nn.Dense(3), nn.ReLU()], [nn.Tanh()], [nn.Dense(2)]]), nn.Dense(4)],
        (5,),
        _ENTROPY,
    ),
    "residual": ([nn.Residual([nn.Dense(5), nn.ReLU()], [nn.Dense(5)]), nn.ReLU(), nn.Dense(4)], (5,), _ENTROPY),
    "symbols": ([nn.Embedding(9, 3), nn.Flatten(), nn.Dense(4)], (5,), _ENTROPY),
    "channels first": (
        [nn.Reshape(_IMAGES), nn.FromNCHW(), nn.Conv2d(4, 3), nn.FromNCHW(), nn.Flatten(), nn.Dense(4)],
        (48,),
        _ENTROPY,
    ),
    "normalised images": (
        [
            nn.FromNCHW(),
            nn.Conv2d(4, 3),
            nn.BatchNorm(),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.AvgPool2d(1),
            nn.GlobalAvgPool2d(),
        ],
        _IMAGES,
        _ENTROPY,
    ),
    "a layer of one's own": ([nn.Dense(5), nn.RReLU(), Scale(), nn.RReLU(), nn.Dense(4), Scale()], (5,), _ENTROPY),
    "one's own in branches": ([nn.Dense(5), nn.Residual([Scale(), nn.ReLU()]), nn.Dense(4)], (5,), _ENTROPY),
    "sequences": ([nn.RNN(4)], (3, 5), _ENTROPY),
    "categories": ([nn.Dense(4), nn.Categorical(3)], (5,), rl.PPO(entropy_weight=0.1).loss(nn.Categorical(3))),
    "real actions": (
        [nn.Dense(5), nn.TanhGaussian([-1.0, -1.0], [1.0, 1.0])],
        (5,),
        rl.REINFORCE().loss(nn.TanhGaussian([-1.0, -1.0], [1.0, 1.0])),
    ),
}


def samples(layers: Sequence[nn.Layer], shape: tuple[int, ...], loss: nn.Loss, seed: int) -> tuple[Array, Array]:
    """Samples and targets, which differ from seed to seed."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 9, (N, *shape)) if isinstance(layers[0], nn.Embedding) else rng.standard_normal((N, *shape))
    if isinstance(loss, nn.CrossEntropy | Weighted):
        return x, rng.integers(0, 4, N)
    width = loss.head.action_width + 3 if isinstance(loss, rl.PolicyLoss) else 4
    y = rng.standard_normal((N, width)).astype(np.float32)
    if isinstance(loss, rl.PolicyLoss) and isinstance(loss.head, nn.Categorical):
        y[:, 0] = rng.integers(0, 3, N)
    if isinstance(loss, nn.BinaryCrossEntropy | nn.Focal):
        y = (y > 0).astype(np.float32)
    return x, y


def test_every_layer_is_played_here() -> None:
    """Activations of single elements have one kernel loop among them, so some stand for all."""
    exported = [getattr(nn, name) for name in nn.__all__]
    layers = {kind for kind in exported if isinstance(kind, type) and issubclass(kind, nn.Layer)}
    to_play = {kind for kind in layers if not inspect.isabstract(kind) and not issubclass(kind, Elementwise)}
    missing = to_play - {type(layer) for layers, _, _ in CASES.values() for layer in every_layer(layers)}
    assert not missing, f"add {', '.join(kind.__name__ for kind in missing)} to CASES"


@pytest.mark.parametrize(("layers", "shape", "loss"), CASES.values(), ids=CASES)
def test_a_pass_is_played_over_other_samples(layers: list[nn.Layer], shape: tuple[int, ...], loss: nn.Loss) -> None:
    model = nn.Sequential(layers).build(shape).initialize(1)
    layout = measure(model, loss, samples(layers, shape, loss, 0)[1][:1])
    memory, clock, sums = np.empty(layout.size_bytes(N), np.uint8), np.zeros(1, np.int64), np.empty(2)
    run = ShardPass(layout, layout.arrays(memory, N), model.params, seed=3, clock=clock)
    x, targets = layout.arrays(memory, N)[:2]

    def work() -> None:
        run.enter(0, N, batch_size=2 * N, step=int(clock[0]), shard=1)
        run.empty(x.shape, x.dtype)
        run.empty(targets.shape, targets.dtype)
        forward_backward(model, loss, x, targets, 0.25, run, sums)

    def left(seed: int) -> list[bytes]:
        """What a pass over some samples leaves."""
        memory[:] = 255
        x[...], targets[...] = samples(layers, shape, loss, seed)
        clock[0] = seed
        for array in (sums, *(param.grad for param in model.params)):
            array[...] = np.nan
        tape = next(iter(tapes.ready(["pass"])), None)
        if tape:
            play([tape])
        else:
            tapes.record("pass", work)
        return [array.tobytes() for array in (sums, *(param.grad for param in model.params))]

    tapes = Tapes()
    recorded = [left(seed) for seed in (1, 2)]
    assert tapes.ready(["pass"])
    assert [left(seed) for seed in (1, 2, 1)] == [*recorded, recorded[0]]
    tapes = Tapes()
    assert left(5) != recorded[0]
    in_python = left(5)
    tapes = Tapes()
    left(1), left(2)
    assert left(5) == in_python
