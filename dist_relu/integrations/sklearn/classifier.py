"""`ReLUClassifier`: a classifier of scikit-learn.  N samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self, final

import numpy as np
import numpy.typing as npt
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from dist_relu import nn
from dist_relu.core.arrays import Array
from dist_relu.integrations.sklearn.network import Network, takes_steps
from dist_relu.integrations.sklearn.samples import Samples


@final
@dataclass(eq=False, repr=False)
class ReLUClassifier(ClassifierMixin, Network):
    """Tells classes y (N,) apart, or finds labels y (N, labels) of 0 and 1, of which a sample may have several.

    Parameters are those of `sklearn.neural_network.MLPClassifier`, and `model`, `n_workers`, `backend`, `shards`: see
    `dist_relu.integrations.sklearn.network.Network`.
    class_weight: how much the samples of each class count; a dict, or "balanced" for every class alike.

    classes_: what `predict` gives, and the order of `predict_proba`.  model_: the `nn.Sequential`, as
    `dist_relu.save_model` takes it.  n_iter_: the epochs of the last fit.  loss_, loss_curve_, best_loss_: without the
    penalty of `alpha`.  validation_scores_, best_validation_score_: with `early_stopping`.  coefs_, intercepts_.
    """

    _: KW_ONLY
    class_weight: Mapping[Any, float] | str | None = None

    @property
    def out_activation_(self) -> str:
        """What makes probabilities of the network's outputs."""
        return "logistic" if self._is_multilabel else "softmax"

    @available_if(takes_steps)
    def partial_fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        classes: npt.ArrayLike | None = None,
    ) -> Self:
        """Go on for an epoch of these samples.

        classes: all that there are, needed in the first call; y may lack some.
        """
        if self.class_weight == "balanced":
            raise ValueError('class_weight="balanced" needs all samples at once: give partial_fit a dict instead.')
        if not hasattr(self, "classes_"):
            if classes is None:
                raise ValueError("The first call of partial_fit needs classes=..., all that there are.")
            self._is_multilabel = type_of_target(y) == "multilabel-indicator"
            self.classes_ = np.unique(classes)
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"classes={classes!r} are not those of the first call, {self.classes_}.")
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: npt.ArrayLike) -> Array:
        """The most likely class of each sample, (N,); or for each label whether it has that, (N, labels), 0 or 1."""
        outputs = self._outputs(X)
        if self._is_multilabel:
            return (outputs > 0).astype(int)
        predicted: Array = self.classes_[outputs.argmax(axis=1)]
        return predicted

    def predict_proba(self, X: npt.ArrayLike) -> Array:
        """The probability of each class or label, (N, classes)."""
        outputs = self._outputs(X)
        probabilities: Array = expit(outputs) if self._is_multilabel else softmax(outputs, axis=1)
        return probabilities

    def predict_log_proba(self, X: npt.ArrayLike) -> Array:
        """The logarithms of `predict_proba`, also of what is too small for that."""
        outputs = self._outputs(X)
        logarithms: Array = log_expit(outputs) if self._is_multilabel else log_softmax(outputs, axis=1)
        return logarithms

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _encoded(self, y: Array, dtype: np.dtype[Any], *, is_first: bool) -> Array:
        check_classification_targets(y)
        is_multilabel = type_of_target(y) == "multilabel-indicator"
        if not is_multilabel:
            y = column_or_1d(y, warn=True)
        present = np.arange(y.shape[1]) if is_multilabel else np.unique(y)
        if is_first:
            self.classes_, self._is_multilabel = present, is_multilabel
        elif is_multilabel != self._is_multilabel or (strange := np.setdiff1d(present, self.classes_)).size:
            what = "labels" if is_multilabel != self._is_multilabel else f"classes {strange}"
            raise ValueError(f"y has {what}, but this {type(self).__name__} goes on with classes {self.classes_}.")
        if is_multilabel:
            return np.asarray(y, dtype)
        return np.searchsorted(self.classes_, y)

    def _weights(self, y: Array, sample_weight: Array | None) -> Array | None:
        if self.class_weight is None:
            return sample_weight
        of_classes: Array = compute_sample_weight(self.class_weight, y)
        return of_classes if sample_weight is None else of_classes * sample_weight

    def _num_outputs(self, targets: Array) -> int:
        return len(self.classes_)

    def _loss(self) -> nn.Loss:
        return nn.BinaryCrossEntropy() if self._is_multilabel else nn.CrossEntropy()

    @property
    def _loss_scale(self) -> float:
        return 1 / len(self.classes_) if self._is_multilabel else 1.0  # scikit-learn adds over labels

    def _score_of(self, outputs: Array, samples: Samples) -> float:
        predicted = outputs > 0 if self._is_multilabel else outputs.argmax(axis=1)
        return float(accuracy_score(samples.targets, predicted, sample_weight=samples.weights))

    def _strata(self, targets: Array) -> Array | None:
        return None if self._is_multilabel else targets
