"""What metrics are to make of a model's outputs: which targets they answer, and whether they are probabilities."""

from __future__ import annotations

from collections.abc import Sequence

from dist_relu.core.arrays import Array
from dist_relu.data import Dataset
from dist_relu.engine.arguments import predicts
from dist_relu.metrics.named import Kind, Metric, Predictions, check_metrics
from dist_relu.nn import Loss, Sequential, Softmax


def checked_metrics(metrics: Metric | Sequence[Metric], model: Sequential, data: Dataset, loss: Loss) -> list[Metric]:
    """Metrics as a list, each of which suits the targets.  Raises ValueError otherwise.  model: built."""
    return check_metrics(metrics, kind_of(model, data, loss), model.output_shape[0] if model.output_shape else 1)


def kind_of(model: Sequential, data: Dataset, loss: Loss) -> Kind:
    """What the targets are; of two classes that a single output tells apart, a label."""
    kind = predicts(data, loss)
    return "labels" if kind == "classes" and model.output_shape == (1,) else kind


def predictions_of(model: Sequential, data: Dataset, loss: Loss, outputs: Array) -> Predictions:
    """The outputs (N, ...) of a model for all samples of a data set, beside their targets."""
    kind = kind_of(model, data, loss)
    return Predictions(
        kind=kind,
        targets=data.y.reshape(outputs.shape) if kind == "labels" else data.y,
        outputs=outputs,
        sample_weight=data.weights,
        are_probabilities=isinstance(model.layers[-1], Softmax),
        classes=model.classes or data.classes,
    )
