"""`ReLURegressor`: a regressor of scikit-learn.  N samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
import numpy.typing as npt
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if

from dist_relu import nn
from dist_relu.core.arrays import Array
from dist_relu.integrations.sklearn.network import Network, takes_steps
from dist_relu.integrations.sklearn.samples import Samples


@final
@dataclass(eq=False, repr=False)
class ReLURegressor(RegressorMixin, Network):
    """Predicts real numbers y (N,), or several for each sample, (N, outputs), with the least squared error.

    Parameters are those of `sklearn.neural_network.MLPRegressor`, and `model`, `n_workers`, `backend`, `shards`: see
    `dist_relu.integrations.sklearn.network.Network`. Attributes are those of `ReLUClassifier`, without classes_; losses
    are half the mean squared error, as there.
    """

    out_activation_ = "identity"

    @available_if(takes_steps)
    def partial_fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Go on for an epoch of these samples."""
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: npt.ArrayLike) -> Array:
        """The numbers of each sample, (N,) or (N, outputs), as the targets were."""
        outputs = self._outputs(X)
        return outputs[:, 0] if self._is_single else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _encoded(self, y: Array, dtype: np.dtype[Any], *, is_first: bool) -> Array:
        is_single = y.ndim == 1 or y.shape[1] == 1
        targets = np.asarray(column_or_1d(y, warn=True) if is_single else y, dtype)
        if is_first or not hasattr(self, "_is_single"):
            self._is_single = is_single
        return targets.reshape(len(targets), -1)

    def _weights(self, y: Array, sample_weight: Array | None) -> Array | None:
        return sample_weight

    def _num_outputs(self, targets: Array) -> int:
        return int(targets.shape[1])

    def _loss(self) -> nn.Loss:
        return nn.MeanSquaredError()

    @property
    def _loss_scale(self) -> float:
        return 2.0  # scikit-learn halves the squares

    def _score_of(self, outputs: Array, samples: Samples) -> float:
        return float(r2_score(samples.targets, outputs, sample_weight=samples.weights))

    def _strata(self, targets: Array) -> Array | None:
        return None
