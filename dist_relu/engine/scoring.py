"""What metrics are to make of a model's outputs: which targets they answer, and whether they are probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.data import Dataset
from dist_relu.engine.arguments import predicts
from dist_relu.metrics.named import Metric, Predictions, check_metrics
from dist_relu.nn import Loss, Sequential, Softmax


def checked_metrics(metrics: Metric | Sequence[Metric], model: Sequential, data: Dataset, loss: Loss) -> list[Metric]:
    """Metrics as a list, each of which suits the targets.  Raises ValueError otherwise.  model: built."""
    if _tells_two_classes(model, data, loss):
        return check_metrics(metrics, "classes", 2)
    return check_metrics(metrics, predicts(data, loss), model.output_shape[0] if model.output_shape else 1)


def predictions_of(model: Sequential, data: Dataset, loss: Loss, outputs: Array) -> Predictions:
    """The outputs (N, ...) of a model for all samples of a data set, beside their targets."""
    kind, targets = predicts(data, loss), data.y
    if _tells_two_classes(model, data, loss):  # softmax of (0, z) is (1 - sigmoid z, sigmoid z)
        kind, targets = "classes", targets.reshape(-1).astype(np.int64)
        outputs = np.concatenate([np.zeros_like(outputs), outputs], axis=1)
    return Predictions(
        kind=kind,
        targets=targets,
        outputs=outputs,
        are_probabilities=isinstance(model.layers[-1], Softmax),
        sample_weight=data.weights,
        classes=model.classes or data.classes,
    )


def _tells_two_classes(model: Sequential, data: Dataset, loss: Loss) -> bool:
    """Whether a single output tells two classes apart, or says whether a label is there."""
    return predicts(data, loss) != "numbers" and model.output_shape == (1,)
