"""Weights of samples and classes, drawing by them, and losses: the right values, and the same bits wherever it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.data import Augment
from dist_relu.engine.weighting import chances, order_of_epoch
from tests.cases import long
from tests.conftest import small_model
from tests.twin import Array, softmax

SHARDS = 4
N = 120
RNG = np.random.default_rng(5)
X = RNG.standard_normal((N, 6))
CLASSES = np.minimum(RNG.geometric(0.5, N) - 1, 2)
NUMBERS = RNG.standard_normal((N, 3))
LABELS = (NUMBERS > 0.5).astype(int)
WEIGHTS = RNG.integers(0, 4, N)

CASES: dict[str, tuple[Array, nn.Loss | None, dict[str, Any]]] = {
    "weights": (CLASSES, None, {"accumulate": 3}),
    "balanced classes": (CLASSES, nn.CrossEntropy(0.1), {"class_weight": "balanced", "clip_norm": 1.0}),
    "weights of classes": (CLASSES, nn.Focal(), {"class_weight": {2: 5.0}, "on_nan": "skip"}),
    "drawn by weight": (CLASSES, None, {"sampler": "weighted", "accumulate": 2}),
    "drawn by class": (CLASSES, nn.Focal(), {"sampler": "balanced"}),
    "mixed": (CLASSES, None, {"class_weight": "balanced", "augment": Augment(mixup=0.3)}),
    "labels": (LABELS, nn.BinaryCrossEntropy((1.0, 2.0, 3.0)), {}),
    "focal loss of labels": (LABELS, nn.Focal(alpha=0.25), {}),
    "Huber loss": (NUMBERS, nn.Huber(0.5), {}),
    "absolute error": (NUMBERS, nn.MeanAbsoluteError(), {"ema_decay": 0.9}),
}


class OwnLoss(nn.Loss):
    """A loss of a user's own, who knows of no weights: of squares, summed over outputs."""

    def check(self, targets: Array, output_shape: tuple[int, ...]) -> None:
        pass

    def backward(self, outputs: Array, targets: Array, scale: float, d_outputs: Array) -> tuple[float, int]:
        d_outputs[...] = 2 * scale * (outputs - targets)
        return float(((outputs - targets) ** 2).sum()), 0


def model(outputs: int = 3, dtype: str = "float64") -> nn.Sequential:
    return nn.mlp((7,), outputs, dtype)


def left(place: dr.Coordinator, case: str) -> list[Any]:
    """What a training leaves: parameters, losses, and an evaluation."""
    y, loss, options = CASES[case]
    data, fitted = dr.Dataset(X, y, weights=WEIGHTS), model(dtype="float32")
    result = place.fit(fitted, data, optim.SGD(0.1), epochs=2, batch_size=17, shards=SHARDS, loss=loss, **options)
    accuracies = None if result.accuracies is None else result.accuracies.tolist()
    return [fitted.sha256(), result.losses.tolist(), accuracies, place.evaluate(fitted, data)]


@pytest.mark.parametrize("case", ["weights", "mixed", "drawn by class", "labels", *long(*CASES)])
def test_a_training_gives_the_same_bits_on_any_number_of_workers(coordinator: dr.Coordinator, case: str) -> None:
    with dr.start(backend="serial") as serial:
        assert left(coordinator, case) == left(serial, case)


@pytest.mark.parametrize(
    ("y", "loss"),
    [(CLASSES, None), (LABELS, nn.BinaryCrossEntropy()), (NUMBERS, nn.Huber()), (NUMBERS, OwnLoss())],
)
def test_a_sample_of_weight_two_is_a_sample_that_is_there_twice(
    coordinator: dr.Coordinator, y: Array, loss: nn.Loss | None
) -> None:
    built = model().build((6,)).initialize(1)
    weighted = dr.Dataset(X, y, weights=WEIGHTS)
    repeated = dr.Dataset(np.repeat(X, WEIGHTS, axis=0), np.repeat(y, WEIGHTS, axis=0))
    expected = coordinator.gradients(built, repeated, loss=loss, shards=SHARDS)
    for name, gradient in coordinator.gradients(built, weighted, loss=loss, shards=SHARDS).items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-10, atol=1e-14)
    ours, theirs = (coordinator.evaluate(built, data, loss=loss) for data in (weighted, repeated))
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-12)
    assert ours.accuracy == (None if theirs.accuracy is None else pytest.approx(theirs.accuracy, rel=1e-12))


def test_the_loss_of_a_step_is_the_weighted_mean_over_all_its_samples(coordinator: dr.Coordinator) -> None:
    """And not a mean over the means of its shards or batches."""
    fitted = model().build((6,)).initialize(1)
    counts = np.bincount(CLASSES)
    weights = WEIGHTS * (np.bincount(CLASSES, WEIGHTS).sum() / (3 * np.bincount(CLASSES, WEIGHTS)))[CLASSES]
    losses = -np.log(softmax(fitted.forward(X))[np.arange(N), CLASSES])
    result = coordinator.fit(
        fitted,
        dr.Dataset(X, CLASSES, weights=WEIGHTS),
        optim.SGD(1e-12),
        epochs=1,
        batch_size=17,
        accumulate=2,
        shards=SHARDS,
        shuffle=False,
        class_weight="balanced",
    )
    steps = [slice(first, first + 34) for first in range(0, N, 34)]
    np.testing.assert_allclose(result.losses, [np.average(losses[s], weights=weights[s]) for s in steps], rtol=1e-9)
    assert counts.min() < counts.max()


def test_a_step_of_samples_that_weigh_nothing_changes_nothing(coordinator: dr.Coordinator) -> None:
    weights = np.repeat([0.0, 1.0], N // 2)
    fitted = model().build((6,)).initialize(1)
    before = fitted.values.copy()
    with coordinator.trainer(
        fitted, (X, CLASSES, weights), optim.SGD(0.1), batch_size=N // 2, shards=SHARDS, shuffle=False
    ) as trainer:
        assert trainer.fit(steps=1).losses == [0]
        assert (fitted.values == before).all()
        trainer.fit(steps=1)
        assert (fitted.values != before).any()


def test_classes_are_drawn_equally_often_and_samples_as_their_weights_say() -> None:
    data = dr.Dataset(X, CLASSES, weights=WEIGHTS)
    for sampler, weights in (
        ("balanced", WEIGHTS / np.bincount(CLASSES, WEIGHTS)[CLASSES] / 3),
        ("weighted", WEIGHTS / WEIGHTS.sum()),
    ):
        of_samples = chances(data, None, sampler)  # type: ignore[arg-type]
        orders = [order_of_epoch(N, 1, epoch, shuffle=True, chances=of_samples) for epoch in range(400)]
        drawn = np.bincount(np.concatenate(orders), minlength=N) / (400 * N)
        np.testing.assert_allclose(drawn, weights, atol=6 * np.sqrt(weights.max() / (400 * N)))
        assert not drawn[WEIGHTS == 0].any()
        assert (orders[0] != orders[1]).any()


def test_a_run_with_a_sampler_goes_on_from_a_file_to_the_same_bits(coordinator: dr.Coordinator, tmp_path: Path) -> None:
    data = dr.Dataset(X, LABELS[:, 0], weights=WEIGHTS)
    loss = nn.Focal(1.5)
    options: dict[str, Any] = {"batch_size": 16, "shards": SHARDS, "sampler": "balanced", "loss": loss, "seed": 3}
    with dr.start(backend="serial") as serial, serial.trainer(model(2), data, optim.Adam(0.01), **options) as whole:
        whole.fit(steps=13)
        expected = whole.state()
        with serial.trainer(model(2), data, optim.Adam(0.01), **options) as first:
            first.fit(steps=5)
            dr.save_state(first.state(), tmp_path / "state")
    state = dr.load_state(tmp_path / "state")
    assert dr.load_model(tmp_path / "state").loss == loss
    with coordinator.trainer(model(2), data, optim.Adam(0.01), **options, state=state) as second:
        second.fit(steps=8)
        assert second.state().first_difference(expected) is None
    with pytest.raises(dr.CheckpointError, match="sampler was 'balanced' and is None"):
        coordinator.trainer(model(2), data, optim.Adam(0.01), **{**options, "sampler": None}, state=state)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ((X, NUMBERS), {"class_weight": "balanced"}, "is for class numbers, but the targets are float64"),
        ((X, CLASSES), {"class_weight": {7: 2.0}}, "weight for class 7, which no sample has"),
        ((X, CLASSES), {"class_weight": {0: 0, 1: 0, 2: 0}}, "leaves no sample that counts"),
        ((X, CLASSES), {"class_weight": {0: -1.0}}, r"class_weight\[0\]=-1.0: must be at least 0"),
        ((X, CLASSES), {"class_weight": "even"}, 'expected "balanced"'),
        ((X, CLASSES), {"sampler": "weighted"}, "but they have none"),
        ((X, NUMBERS), {"sampler": "balanced"}, "expected class numbers"),
        ((X, CLASSES), {"sampler": "balanced", "shuffle": False}, "shuffle=False keeps their order"),
        ((X, CLASSES), {"sampler": "balanced", "class_weight": "balanced"}, "no place beside it"),
        ((X, CLASSES, WEIGHTS[1:]), {}, r"weights have shape \(119,\); expected one for each sample"),
        ((X, CLASSES, -WEIGHTS), {}, "expected numbers of at least 0"),
        ((X, CLASSES, 0 * WEIGHTS), {}, "weights are 0 for all samples"),
        ((X, CLASSES, np.full(N, np.nan)), {}, r"weights\[0\] is nan"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    serial: dr.Coordinator, data: tuple[Array, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        serial.fit(small_model(), data, optim.SGD(0.1), epochs=1, batch_size=8, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def serial() -> Any:
    with dr.start(backend="serial") as started:
        yield started
