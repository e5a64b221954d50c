"""When a fit of scikit-learn's kind stops, and what becomes of its learning rate: a callback of `Trainer.fit`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import final

from dist_relu.core.arrays import Array
from dist_relu.engine.watch.records import EpochSummary
from dist_relu.run.trainer import Trainer

_LEAST_RATE = 1e-6
"""At which "adaptive" stops rather than going on."""


@final
@dataclass(eq=False, kw_only=True)
class Stopping:
    """Stops after epochs that are no better, by the rules of `sklearn.neural_network.MLPClassifier`.

    learning_rate: "constant", "invscaling" or "adaptive", from `lr` on.  tol: better is by more than this.
    patience: after more than so many epochs in a row that are no better it stops, or lowers the learning rate.
    loss_scale: our losses are so many times scikit-learn's.  num_seen: the samples that were trained on.
    validate: gives the score of held-back samples, by which epochs are judged; otherwise that is by the loss.

    losses, scores: of the epochs.  best_values: with `validate` the parameters of the best one.
    converged: it has stopped the fit.
    """

    learning_rate: str
    lr: float
    power_t: float
    tol: float
    patience: int
    loss_scale: float
    num_samples: int
    num_seen: int
    validate: Callable[[], float] | None
    losses: list[float] = field(init=False, default_factory=list)
    scores: list[float] = field(init=False, default_factory=list)
    best_loss: float = field(init=False, default=inf)
    best_score: float = field(init=False, default=-inf)
    best_values: Array | None = field(init=False, default=None)
    converged: bool = field(init=False, default=False)
    _num_bad: int = field(init=False, default=0)

    def on_fit_begin(self, trainer: Trainer, *, validates: bool) -> None:
        self._scale(trainer)

    def on_epoch_end(self, trainer: Trainer, summary: EpochSummary) -> None:
        self.num_seen += self.num_samples
        self.losses.append(summary.loss / self.loss_scale)
        if self.validate:
            self._take_score(trainer, self.validate())
        else:
            self._take_loss(self.losses[-1])
        self._scale(trainer)
        if self._num_bad > self.patience:
            self._end_or_slow_down(trainer)

    def _take_score(self, trainer: Trainer, score: float) -> None:
        self.scores.append(score)
        self._num_bad = self._num_bad + 1 if score < self.best_score + self.tol else 0
        if score > self.best_score:
            self.best_score, self.best_values = score, trainer.model.values.copy()

    def _take_loss(self, loss: float) -> None:
        self._num_bad = self._num_bad + 1 if loss > self.best_loss - self.tol else 0
        self.best_loss = min(self.best_loss, loss)

    def _scale(self, trainer: Trainer) -> None:
        if self.learning_rate == "invscaling":
            trainer.lr_scale = (self.num_seen + 1) ** -self.power_t

    def _end_or_slow_down(self, trainer: Trainer) -> None:
        if self.learning_rate == "adaptive" and self.lr * trainer.lr_scale > _LEAST_RATE:
            trainer.lr_scale /= 5
            self._num_bad = 0
        else:
            self.converged = True
            raise StopIteration
