"""The mean loss over a whole data set, and its gradient, as functions of the parameters: what is minimised."""

from __future__ import annotations

from math import isfinite
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.data import Dataset
from dist_relu.engine.arguments import predicts
from dist_relu.engine.memory import Snapshot
from dist_relu.engine.plan import StepPlan
from dist_relu.engine.site import Site
from dist_relu.engine.training import Training
from dist_relu.engine.watch.observer import Observer
from dist_relu.errors import BackendError
from dist_relu.kernels.long_sums import dot_row
from dist_relu.nn import BatchNorm, Dropout, RReLU, Sequential
from dist_relu.nn.structure import every_layer


def check_is_function(model: Sequential) -> None:
    """Raise ValueError where the loss depends on more than parameters and samples, so that none can be compared."""
    for layer in every_layer(model.layers):
        if isinstance(layer, Dropout | RReLU):
            raise ValueError(
                f"{type(layer).__name__} draws anew each time, so that no loss could be compared with another. Leave "
                "it away, or train with coordinator.fit."
            )
        if isinstance(layer, BatchNorm):
            raise ValueError(
                "BatchNorm has statistics that follow training, which a minimisation has none for. Take LayerNorm, or "
                "train with coordinator.fit."
            )


@final
class Objective:
    """All workers compute the loss and its gradient, with the same bits on any number of them.

    It keeps its memory on the nodes until it is closed. weight_decay: adds half of this times the sum of the squares of
    all weights; parameters of one dimension don't decay.  plan: of steps over all samples that leave their gradient.
    """

    def __init__(self, site: Site, model: Sequential, data: Dataset, plan: StepPlan, weight_decay: float) -> None:
        self._site, self._model, self._data, self._plan = site, model, data, plan
        self._weight_decay = weight_decay
        self._training: Training | None = None
        self._has_workers_of = site.workers.generation

    def __call__(self, values: Array) -> tuple[float, Array]:
        """Compute the loss at `values` (P,), and its gradient (P,) float64; collective.

        Where the loss is not finite, the gradient is zero.
        """
        loss, gradient = self._site.survive(lambda: self._compute(values))
        gradient = gradient.astype(np.float64)
        if not isfinite(loss) or not np.isfinite(gradient).all():
            return float("nan"), np.zeros_like(gradient)
        if self._weight_decay:
            weights = values.astype(np.float64)
            for param, view in zip(self._model.params, self._model.views(weights), strict=True):
                if len(param.shape) < 2:
                    view[...] = 0
            loss += self._weight_decay / 2 * dot_row(weights, weights)
            gradient += self._weight_decay * weights
        return loss, gradient

    def close(self) -> None:
        """Free the memory on all nodes."""
        if self._training:
            self._training.close()
            self._training = None

    def _compute(self, values: Array) -> tuple[float, Array]:
        training = self._training_at(values)
        step = training.step
        try:
            stopped = training.advance(step, step + 1, self._plan.optimizer, last=step + 1)
        except BaseException as error:
            self._training = None
            training.abandon(error)
            raise
        if stopped:
            return stopped.loss, np.zeros_like(values)
        return float(training.records(step, step + 1)["loss"][0]), training.values().copy()

    def _training_at(self, values: Array) -> Training:
        generation = self._site.workers.generation
        if self._training and generation == self._has_workers_of:
            self._training.put(values)
            return self._training
        if self._training:
            self._training.abandon(BackendError("The workers have become others."))
        self._has_workers_of = generation
        has_accuracy = predicts(self._data, self._plan.loss) != "numbers"
        observer = Observer(self._model, self._plan, 1, has_accuracy=has_accuracy)
        begin = Snapshot.initial(values, self._plan)
        self._training = Training(self._site, self._model, self._data, self._plan, observer, begin)
        return self._training
