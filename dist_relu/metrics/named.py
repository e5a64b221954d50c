"""Metrics by name: what `Coordinator.evaluate(metrics=...)` and `dist-relu evaluate --metrics` can be asked for."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, final

import numpy as np

from dist_relu.activations import sigmoid, softmax
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_sequence, shown
from dist_relu.errors import DataWarning
from dist_relu.metrics import classification, probabilities, ranking, regression

Kind = Literal["classes", "labels", "numbers"]
"""What is predicted: one of several classes, any number of labels, real numbers."""

Metric = str | Callable[[Array, Array], Any]
"""A name, or a function of the targets (N, ...) and the model's outputs (N, ...)."""

N_BINS = 10
"""Of calibration."""

_TOP = re.compile(r"top_([1-9]\d*)")


@final
@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions are what a model says of samples whose targets are known.

    targets: class numbers (N,), an indicator (N, K), or real numbers (N, ...).  outputs: (N, K) or (N, ...), as the
    model gives them; are_probabilities: otherwise logits, where they are of classes.  classes: their names.
    """

    kind: Kind
    targets: Array
    outputs: Array
    are_probabilities: bool = False
    sample_weight: Array | None = None
    classes: Sequence[str] | None = None

    @property
    def labels(self) -> Array:
        """The numbers of all classes, (K,), those that do not occur too."""
        return np.arange(self.outputs.shape[1])

    @property
    def names(self) -> list[str]:
        """The names of all classes; the numbers of those that have none."""
        known = list(self.classes or ())[: len(self.labels)]
        return known + [str(label) for label in self.labels[len(known) :]]

    @cached_property
    def probabilities(self) -> Array:
        """The probability of every class, (N, K) float64."""
        outputs = self.outputs.astype(np.float64)
        if self.are_probabilities:
            return outputs
        if self.kind == "labels":
            return sigmoid(outputs)
        return softmax(outputs)

    @cached_property
    def predicted(self) -> Array:
        """The class numbers (N,) of the greatest outputs, or which labels are more likely than not (N, K)."""
        if self.kind == "labels":
            return (self.outputs > (0.5 if self.are_probabilities else 0)).astype(np.int64)
        return np.asarray(self.outputs.argmax(axis=1))


def names_for(kind: Kind, num_outputs: int) -> list[str]:
    """The names of all metrics of what is predicted; classes come with the metric "top_K" of the least useful K."""
    if kind == "classes" and num_outputs > 2:
        return [*_NAMED[kind], "top_5" if num_outputs > 5 else "top_2"]
    return list(_NAMED[kind])


def check_metrics(metrics: Metric | Sequence[Metric], kind: Kind, num_outputs: int) -> list[Metric]:
    """What was asked for, "all" replaced by all names.  Raises ValueError for names that are none of such targets."""
    is_one = isinstance(metrics, str) or callable(metrics)
    wanted: list[Metric] = [metrics] if is_one else list(check_sequence("metrics", metrics, _check_metric, "names"))  # type: ignore[list-item]
    if "all" in wanted:
        at = wanted.index("all")
        wanted[at : at + 1] = [name for name in names_for(kind, num_outputs) if name not in wanted]
    for metric in wanted:
        if (
            isinstance(metric, str)
            and metric not in _NAMED[kind]
            and not (kind == "classes" and _TOP.fullmatch(metric))
        ):
            of = {"classes": "classes", "labels": "several labels a sample", "numbers": "real numbers"}[kind]
            top = ", top_2, top_3, ..." if kind == "classes" else ""
            raise ValueError(f"metrics={metric!r}: the targets are {of}; expected all, {', '.join(_NAMED[kind])}{top}.")
    return wanted


def _check_metric(name: str, value: Any) -> Metric:
    if not isinstance(value, str) and not callable(value):
        raise TypeError(f"{shown(name, value)}: expected names, or functions of targets and outputs.")
    metric: Metric = value
    return metric


def is_number(metric: str) -> bool:
    """Whether there is such a metric, and it is a single number."""
    known = {name for names in _NAMED.values() for name in names} - {"report", "confusion", "calibration"}
    return metric in known or bool(_TOP.fullmatch(metric))


def measure(metrics: Sequence[Metric], predictions: Predictions) -> dict[str, Any]:
    """Compute metrics that were checked, by their names: numbers, arrays, or dicts of them by class.

    What has no value is NaN where scikit-learn says so, and otherwise 0: there is no warning for each class that does
    not occur.
    """
    found: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        for metric in metrics:
            if not isinstance(metric, str):
                found[getattr(metric, "__name__", repr(metric))] = metric(predictions.targets, predictions.outputs)
            elif metric in _NAMED[predictions.kind]:
                found[metric] = _NAMED[predictions.kind][metric](predictions)
            else:
                found[metric] = _top(int(metric.removeprefix("top_")), predictions)
    return found


def is_better_when_greater(metric: str) -> bool:
    """Whether more of a metric is better: errors and losses are better when they are smaller."""
    return metric not in ("mae", "mse", "rmse", "log_loss", "brier", "calibration_error")


def _accuracy(p: Predictions) -> float:
    return classification.accuracy_score(p.targets, p.predicted, sample_weight=p.sample_weight)


def _balanced_accuracy(p: Predictions) -> float:
    return classification.balanced_accuracy_score(p.targets, p.predicted, sample_weight=p.sample_weight)


def _correlation(p: Predictions) -> float:
    return classification.matthews_corrcoef(p.targets, p.predicted, sample_weight=p.sample_weight)


def _averaged(
    score: Callable[..., Any], p: Predictions, average: Literal["macro", "micro", "weighted"] | None = None
) -> float:
    """Precision, recall or F1: of class 1 of two; of more, or where an average is asked for, over all classes."""
    options: dict[str, Any] = {"average": average or "macro", "labels": p.labels}
    if average is None and p.kind == "classes" and len(p.labels) == 2:
        options["labels"] = [1]
    return float(score(p.targets, p.predicted, sample_weight=p.sample_weight, zero_division=0, **options))


def _report(p: Predictions) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and the number of samples (the sum of their weights) of each class by its name."""
    columns = classification.precision_recall_fscore_support(
        p.targets, p.predicted, labels=p.labels, sample_weight=p.sample_weight, zero_division=0
    )
    rows = zip(p.names, *(column.tolist() for column in columns), strict=True)
    return {name: dict(zip(("precision", "recall", "f1", "support"), row, strict=True)) for name, *row in rows}


def _confusion(p: Predictions) -> Array:
    if p.kind == "labels":
        return classification.multilabel_confusion_matrix(p.targets, p.predicted, sample_weight=p.sample_weight)
    return classification.confusion_matrix(p.targets, p.predicted, labels=p.labels, sample_weight=p.sample_weight)


def _one_hot(p: Predictions) -> Array:
    return p.targets if p.kind == "labels" else (p.targets[:, np.newaxis] == p.labels).astype(np.int64)


def _roc_auc(p: Predictions) -> float:
    """Of class 1 of two; otherwise the mean over classes, each against all others."""
    if p.kind == "classes" and len(p.labels) == 2:
        return float(ranking.roc_auc_score(p.targets, p.probabilities[:, 1], sample_weight=p.sample_weight))
    return float(ranking.roc_auc_score(_one_hot(p), p.probabilities, sample_weight=p.sample_weight))


def _average_precision(p: Predictions) -> float:
    if p.kind == "classes" and len(p.labels) == 2:
        return float(ranking.average_precision_score(p.targets, p.probabilities[:, 1], sample_weight=p.sample_weight))
    return float(ranking.average_precision_score(_one_hot(p), p.probabilities, sample_weight=p.sample_weight))


def _top(k: int, p: Predictions) -> float:
    return ranking.top_k_accuracy_score(p.targets, p.outputs, k=k, labels=p.labels, sample_weight=p.sample_weight)


def _log_loss(p: Predictions) -> float:
    return probabilities.log_loss(p.targets, p.probabilities, labels=p.labels, sample_weight=p.sample_weight)


def _brier(p: Predictions) -> float:
    return probabilities.brier_score_loss(p.targets, p.probabilities, labels=p.labels, sample_weight=p.sample_weight)


def _to_calibrate(p: Predictions) -> tuple[Array, Array]:
    """Class 1 of two and its probability; of several, whether a prediction was right, and how sure it was."""
    if len(p.labels) == 2:
        return p.targets, p.probabilities[:, 1]
    return (p.predicted == p.targets).astype(np.int64), np.minimum(p.probabilities.max(axis=1), 1.0)


def _calibration(p: Predictions) -> dict[str, Array]:
    true, predicted = probabilities.calibration_curve(*_to_calibrate(p), pos_label=1, n_bins=N_BINS)
    return {"prob_true": true, "prob_pred": predicted}


def _calibration_error(p: Predictions) -> float:
    return probabilities.expected_calibration_error(*_to_calibrate(p), pos_label=1, n_bins=N_BINS)


def _of_numbers(score: Callable[..., Any], p: Predictions) -> float:
    targets, outputs = (array.reshape(len(array), -1) for array in (p.targets, p.outputs))
    return float(score(targets, outputs, sample_weight=p.sample_weight))


_PRF = {
    "precision": classification.precision_score,
    "recall": classification.recall_score,
    "f1": classification.f1_score,
}
_AVERAGES: tuple[Literal["macro", "micro", "weighted"], ...] = ("macro", "micro", "weighted")

_OF_SETS: Mapping[str, Callable[[Predictions], Any]] = {
    "accuracy": _accuracy,
    **{name: partial(_averaged, score) for name, score in _PRF.items()},
    **{
        f"{name}_{average}": partial(_averaged, score, average=average)
        for name, score in _PRF.items()
        for average in _AVERAGES
    },
    "roc_auc": _roc_auc,
    "average_precision": _average_precision,
    "report": _report,
    "confusion": _confusion,
}

_NAMED: Mapping[Kind, Mapping[str, Callable[[Predictions], Any]]] = {
    "classes": {
        **_OF_SETS,
        "balanced_accuracy": _balanced_accuracy,
        "matthews_corrcoef": _correlation,
        "log_loss": _log_loss,
        "brier": _brier,
        "calibration_error": _calibration_error,
        "calibration": _calibration,
    },
    "labels": _OF_SETS,
    "numbers": {
        "r2": partial(_of_numbers, regression.r2_score),
        "mae": partial(_of_numbers, regression.mean_absolute_error),
        "mse": partial(_of_numbers, regression.mean_squared_error),
        "rmse": partial(_of_numbers, regression.root_mean_squared_error),
    },
}
