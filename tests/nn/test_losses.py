"""Losses of labels, of classes that are hard to tell, and of distances, against plain NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_relu import nn
from dist_relu.errors import DataError
from tests.twin import Array, softmax

N, K = 7, 4


def sigmoid(z: Array) -> Array:
    p: Array = 1 / (1 + np.exp(-z))
    return p


def binary(z: Array, t: Array, pos_weight: float | Array = 1.0) -> Array:
    losses: Array = -(pos_weight * t * np.log(sigmoid(z)) + (1 - t) * np.log(1 - sigmoid(z))).mean(axis=1)
    return losses


def binary_focal(z: Array, t: Array, gamma: float, of_zero: float = 1.0, of_one: float = 1.0) -> Array:
    p = sigmoid(z)
    ones, zeros = of_one * (1 - p) ** gamma * np.log(p), of_zero * p**gamma * np.log(1 - p)
    losses: Array = -(t * ones + (1 - t) * zeros).mean(axis=1)
    return losses


def focal(z: Array, labels: Array, gamma: float) -> Array:
    p = softmax(z)[np.arange(len(z)), labels]
    losses: Array = -((1 - p) ** gamma) * np.log(p)
    return losses


def huber(y: Array, t: Array, delta: float) -> Array:
    d = np.abs(y - t)
    losses: Array = np.where(d <= delta, d**2 / 2, delta * (d - delta / 2)).mean(axis=1)
    return losses


Twin = Callable[[Array, Array], Array]
POS_WEIGHTS = [0.5, 1.0, 2.0, 7.0]
OF_LABELS: list[tuple[nn.Loss, Twin]] = [
    (nn.BinaryCrossEntropy(), binary),
    (nn.BinaryCrossEntropy(3.0), lambda z, t: binary(z, t, 3.0)),
    (nn.BinaryCrossEntropy(POS_WEIGHTS), lambda z, t: binary(z, t, np.array(POS_WEIGHTS))),
    (nn.Focal(), lambda z, t: binary_focal(z, t, 2.0)),
    (nn.Focal(0.5, alpha=0.25), lambda z, t: binary_focal(z, t, 0.5, 0.75, 0.25)),
    (nn.Focal(0.0), binary),
]
OF_CLASSES: list[tuple[nn.Loss, Twin]] = [
    (nn.Focal(), lambda z, labels: focal(z, labels, 2.0)),
    (nn.Focal(0.5), lambda z, labels: focal(z, labels, 0.5)),
    (nn.Focal(0.0), lambda z, labels: focal(z, labels, 0.0)),
]
OF_NUMBERS: list[tuple[nn.Loss, Twin]] = [
    (nn.Huber(), lambda y, t: huber(y, t, 1.0)),
    (nn.Huber(0.1), lambda y, t: huber(y, t, 0.1)),
    (nn.MeanAbsoluteError(), lambda y, t: np.abs(y - t).mean(axis=1)),
]


def names(cases: list[tuple[nn.Loss, Twin]]) -> list[str]:
    return [str(loss) for loss, _ in cases]


def check(loss: nn.Loss, twin: Twin, outputs: Array, targets: Array) -> None:
    """Compare the loss with its twin, and its gradient with the differences of the twin."""
    gradient = np.empty_like(outputs)
    total, _ = loss.backward(outputs, targets, 0.5, gradient)
    assert total == pytest.approx(twin(outputs, targets).sum(), rel=1e-10)
    step = 1e-6
    for k in range(outputs.shape[1]):
        moved = np.zeros_like(outputs)
        moved[:, k] = step
        slopes = (twin(outputs + moved, targets) - twin(outputs - moved, targets)) / (2 * step)
        np.testing.assert_allclose(gradient[:, k], 0.5 * slopes, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("loss", "twin"), OF_LABELS, ids=names(OF_LABELS))
@pytest.mark.parametrize("is_soft", [False, True])
def test_losses_of_labels(rng: np.random.Generator, loss: nn.Loss, twin: Twin, is_soft: bool) -> None:
    t = rng.random((N, K))
    check(loss, twin, 3 * rng.standard_normal((N, K)), t if is_soft else t.round())


@pytest.mark.parametrize(("loss", "twin"), OF_CLASSES, ids=names(OF_CLASSES))
def test_losses_of_classes(rng: np.random.Generator, loss: nn.Loss, twin: Twin) -> None:
    check(loss, twin, 3 * rng.standard_normal((N, K)), rng.integers(0, K, N))


@pytest.mark.parametrize(("loss", "twin"), OF_NUMBERS, ids=names(OF_NUMBERS))
def test_losses_of_distances(rng: np.random.Generator, loss: nn.Loss, twin: Twin) -> None:
    check(loss, twin, rng.standard_normal((N, K)), rng.standard_normal((N, K)))


@pytest.mark.parametrize(
    "loss", [nn.BinaryCrossEntropy(), nn.Focal(), nn.Focal(0.5, alpha=0.25), nn.Focal(0.0)], ids=str
)
def test_a_single_output_tells_two_classes_apart(rng: np.random.Generator, loss: nn.Loss) -> None:
    z, labels = rng.standard_normal((N, 1)), rng.integers(0, 2, N)
    left = []
    for targets in (labels, labels.astype(float).reshape(N, 1)):
        gradient = np.empty_like(z)
        left.append((loss.backward(z, targets, 1.0, gradient), gradient.tobytes()))
    assert left[0] == left[1]
    assert left[0][0][1] == ((z[:, 0] > 0) == labels).sum()


def test_a_sample_is_right_when_all_its_labels_are() -> None:
    z = np.array([[2.0, -1.0], [2.0, 1.0], [-1.0, -1.0]])
    t = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.4]])
    for loss in (nn.BinaryCrossEntropy(), nn.Focal()):
        assert loss.backward(z, t, 1.0, np.empty_like(z))[1] == 2


@given(st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]), st.sampled_from([0, 1]), st.floats(-(2.0**100), 2.0**100, width=32))
def test_no_logit_makes_a_loss_overflow(gamma: float, label: int, logit: float) -> None:
    pair = np.array([[0.0, logit]], np.float32)
    target = np.array([[label]], np.float32)
    for loss, z, t in (
        (nn.BinaryCrossEntropy(2.0), pair[:, 1:].copy(), target),
        (nn.Focal(gamma, alpha=0.25), pair[:, 1:].copy(), target),
        (nn.Focal(gamma), pair, np.array([label])),
    ):
        gradient = np.empty_like(z)
        total, _ = loss.backward(z, t, 1.0, gradient)
        assert total >= 0
        assert np.isfinite([total, *gradient.ravel()]).all()


def test_a_loss_that_is_nearly_nothing_keeps_its_digits() -> None:
    z = np.array([[30.0]])
    for loss, expected in ((nn.BinaryCrossEntropy(), np.exp(-30.0)), (nn.Focal(2.0), np.exp(-90.0))):
        assert loss.backward(z, np.ones((1, 1)), 1.0, np.empty_like(z))[0] == pytest.approx(expected, rel=1e-9)
    z = np.array([[0.0, 30.0]])
    assert nn.Focal(2.0).backward(z, np.array([1]), 1.0, np.empty_like(z))[0] == pytest.approx(np.exp(-90.0), rel=1e-9)


def test_a_focal_loss_without_focus_is_the_cross_entropy(rng: np.random.Generator) -> None:
    z, labels = rng.standard_normal((N, K)), rng.integers(0, K, N)
    of_focal, of_entropy = np.empty((N, K)), np.empty((N, K))
    losses = [nn.Focal(0).backward(z, labels, 1.0, of_focal), nn.CrossEntropy().backward(z, labels, 1.0, of_entropy)]
    assert losses[0] == pytest.approx(losses[1])
    np.testing.assert_allclose(of_focal, of_entropy, atol=1e-12)


@pytest.mark.parametrize(
    ("loss", "targets", "message"),
    [
        (nn.BinaryCrossEntropy(), np.zeros((2, 2)), r"needs targets of shape \(N, 3\)"),
        (nn.BinaryCrossEntropy(), np.array([0, 1]), "Class numbers are for the cross-entropy"),
        (nn.BinaryCrossEntropy(), np.array([[0, 1, 1], [0, 2, 1]]), "from 0 to 1, but those of sample 1 are"),
        (nn.BinaryCrossEntropy([1.0, 2.0]), np.zeros((2, 3)), "has 2 numbers; expected one for each of the 3 labels"),
        (nn.Focal(), np.array([0, 3]), "Label 3 of sample 1 is outside the classes 0 to 2"),
        (nn.Focal(alpha=0.25), np.array([0, 2]), "pass class_weight"),
        (nn.Focal(), np.full((2, 3), 1.5), "from 0 to 1"),
        (nn.Huber(), np.zeros((2, 2)), r"Huber loss needs real targets of shape \(N, 3\)"),
        (nn.MeanAbsoluteError(), np.array([0, 1]), "mean absolute error needs real targets"),
    ],
)
def test_targets_that_do_not_suit_a_loss_are_refused(loss: nn.Loss, targets: Array, message: str) -> None:
    with pytest.raises(DataError, match=message):
        loss.check(targets, (3,))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Huber(0),
        lambda: nn.Focal(-1),
        lambda: nn.Focal(alpha=1.0),
        lambda: nn.BinaryCrossEntropy(0.0),
        lambda: nn.BinaryCrossEntropy([1.0, -1.0]),
    ],
)
def test_a_loss_of_a_parameter_that_makes_no_sense_is_refused(make: Callable[[], nn.Loss]) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.peer
def test_losses_agree_with_pytorch(dtype: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    z = (5 * rng.standard_normal((9, K))).astype(dtype)
    labels, numbers = rng.integers(0, 2, (9, K)).astype(dtype), rng.standard_normal((9, K)).astype(dtype)
    weights = torch.tensor(np.array(POS_WEIGHTS, dtype))
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for loss, targets, theirs in (
        (nn.BinaryCrossEntropy(), labels, functional.binary_cross_entropy_with_logits),
        (
            nn.BinaryCrossEntropy(POS_WEIGHTS),
            labels,
            lambda z, t: functional.binary_cross_entropy_with_logits(z, t, pos_weight=weights),
        ),
        (nn.Huber(0.7), numbers, lambda z, t: functional.huber_loss(z, t, delta=0.7)),
        (nn.MeanAbsoluteError(), numbers, functional.l1_loss),
    ):
        outputs = torch.tensor(z, requires_grad=True)
        expected = theirs(outputs, torch.tensor(targets))
        expected.backward()
        gradient = np.empty_like(z)
        total, _ = loss.backward(z, targets, 1 / 9, gradient)
        assert total / 9 == pytest.approx(expected.item(), rel=tolerance)
        np.testing.assert_allclose(gradient, outputs.grad.numpy(), rtol=tolerance, atol=tolerance)
