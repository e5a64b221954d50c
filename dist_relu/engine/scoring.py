"""What metrics are to make of a model's outputs: which targets they answer, and whether they are probabilities."""

from __future__ import annotations

from collections.abc import Sequence

from dist_relu.core.arrays import Array
from dist_relu.data import Dataset
from dist_relu.metrics.named import Kind, Metric, Predictions, check_metrics
from dist_relu.nn import Sequential, Softmax


def checked_metrics(metrics: Metric | Sequence[Metric], model: Sequential, data: Dataset) -> list[Metric]:
    """Metrics as a list, each of which suits the targets.  Raises ValueError otherwise.  model: built."""
    return check_metrics(metrics, kind_of(data), model.output_shape[0] if model.output_shape else 1)


def kind_of(data: Dataset) -> Kind:
    """What the targets are."""
    return "classes" if data.has_classes else "numbers"


def predictions_of(model: Sequential, data: Dataset, outputs: Array) -> Predictions:
    """The outputs (N, ...) of a model for all samples of a data set, beside their targets."""
    return Predictions(
        kind=kind_of(data),
        targets=data.y,
        outputs=outputs,
        are_probabilities=isinstance(model.layers[-1], Softmax),
        classes=model.classes or data.classes,
    )
