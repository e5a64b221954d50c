"""Losses and weights of classes on the command line, from text to objects, and in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dist_relu.data import Dataset
from dist_relu.engine.weighting import ClassWeight
from dist_relu.nn import BinaryCrossEntropy, CrossEntropy, Focal, Huber, Loss, MeanAbsoluteError, MeanSquaredError

LOSS_FORMS = "cross-entropy, focal[:GAMMA[,ALPHA]], bce[:POS_WEIGHT], mse, mae, huber[:DELTA]"

_LOSSES: dict[str, Callable[[Sequence[float]], Loss]] = {
    "cross-entropy": lambda numbers: CrossEntropy(*_at_most(0, numbers)),
    "focal": lambda numbers: Focal(*_at_most(2, numbers)),
    "bce": lambda numbers: BinaryCrossEntropy(numbers if len(numbers) > 1 else numbers[0] if numbers else 1.0),
    "mse": lambda numbers: MeanSquaredError(*_at_most(0, numbers)),
    "mae": lambda numbers: MeanAbsoluteError(*_at_most(0, numbers)),
    "huber": lambda numbers: Huber(*_at_most(1, numbers)),
}
_WORDS: dict[type[Loss], str] = {
    CrossEntropy: "cross-entropy",
    Focal: "focal loss",
    BinaryCrossEntropy: "binary cross-entropy",
    MeanSquaredError: "mean squared error",
    MeanAbsoluteError: "mean absolute error",
    Huber: "Huber loss",
}


def parse_loss(text: str | None, label_smoothing: float) -> Loss | None:
    """From "NAME" or "NAME:NUMBER,..."; None for that which targets have by default.

    Raises ValueError for any other text, and where it smooths no labels.
    """
    if label_smoothing:
        if text not in (None, "cross-entropy"):
            raise ValueError(f"--label-smoothing is for the cross-entropy, not for --loss {text}.")
        return CrossEntropy(label_smoothing)
    if text is None:
        return None
    name, colon, rest = text.partition(":")
    try:
        make, numbers = _LOSSES[name], [float(number) for number in rest.split(",")] if colon else []
    except (KeyError, ValueError):
        raise ValueError(f"--loss {text}: expected {LOSS_FORMS}.") from None
    try:
        return make(numbers)
    except ValueError as error:
        raise ValueError(f"--loss {text}: {error}") from None


def parse_class_weight(text: str | None, data: Dataset) -> ClassWeight | None:
    """From "balanced", or "CLASS:WEIGHT,..." with numbers or names of classes.  Raises ValueError for other text."""
    if text in (None, "balanced"):
        return text  # type: ignore[return-value]  # mypy knows no literals here
    weights = {}
    numbers = {name: number for number, name in enumerate(data.classes or ())}
    for part in str(text).split(","):
        name, _, weight = part.rpartition(":")
        try:
            weights[numbers[name] if name in numbers else int(name)] = float(weight)
        except ValueError:
            raise ValueError(
                f"--class-weight {text}: {part!r} is no class with its weight; expected balanced, or CLASS:WEIGHT,... "
                "such as 0:1,1:5."
            ) from None
    return weights


def loss_in_words(loss: Loss) -> str:
    """What a loss is called."""
    return _WORDS.get(type(loss), type(loss).__name__)


def _at_most(count: int, numbers: Sequence[float]) -> Sequence[float]:
    if len(numbers) > count:
        expected = ["no number", "at most one number", "at most two numbers"][count]
        raise ValueError(f"it takes {expected}, not {len(numbers)}.")
    return numbers
