"""Callbacks that most runs want: they stop a run, keep its best parameters, and lower its learning rate.

Whatever they decide rests on numbers that are the same with any number of workers, and so is the step where they do.
An object serves one run, over all its calls; where it is passed for another one, that begins at step 0, it begins anew.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from dist_relu.checkpoint import check_can_be_saved, save_model
from dist_relu.core.arrays import Array
from dist_relu.core.checks import (
    check_bool,
    check_fields,
    check_float,
    check_int,
    check_not_negative,
    check_path,
    check_positive,
    optional,
)
from dist_relu.core.files import Attempts, check_writable
from dist_relu.engine.results import Validated
from dist_relu.engine.training import with_values
from dist_relu.engine.watch.records import EpochSummary
from dist_relu.errors import TrainingWarning
from dist_relu.nn import Sequential
from dist_relu.run.monitoring import Patience, check_monitor, check_monitored, is_maximised, monitored
from dist_relu.run.trainer import Trainer


@final
@dataclass(eq=False)
class EarlyStopping:
    """Ends a call of `Trainer.fit` when what is monitored has not become better for too long.

    monitor: "validation_loss" or "validation_accuracy", or "loss" or "accuracy" of the epochs of training, or what
    validations measure by `Trainer.fit(metrics=...)`, as "validation_f1_macro". Losses and errors are better when they
    are smaller, all else when it is greater.
    patience: after how many validations (or epochs) in a row that are no better it ends.  min_delta: a better one is
    better by more than this.
    restore_best: after each call the model has the best parameters so far, whatever ended it. The run itself stays
    where it is: `Trainer.state()` has the last parameters, and a further call goes on from those.

    best, best_step: the best value, and how many steps were complete; None before the first.
    stopped_step: where it has ended a call, otherwise None. Once it has, it ends further calls at once: five calls of
    one epoch come to what a call of five does.
    """

    monitor: str = "validation_loss"
    patience: int = 5
    min_delta: float = 0.0
    restore_best: bool = False
    best_step: int | None = field(init=False, default=None, repr=False)
    stopped_step: int | None = field(init=False, default=None, repr=False)
    _rule: Patience = field(init=False, repr=False)
    _best_values: Array | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        check_fields(
            self, monitor=check_monitor, patience=check_int, min_delta=check_not_negative, restore_best=check_bool
        )
        self._forget()

    @property
    def best(self) -> float | None:
        return self._rule.best

    def on_fit_begin(self, trainer: Trainer, *, validates: bool) -> None:
        """Raise ValueError unless the call has what is monitored."""
        check_monitored("EarlyStopping", self.monitor, trainer.model, validates=validates, metrics=trainer.metrics)
        if trainer.step == 0:
            self._forget()
        if self.stopped_step is not None:
            raise StopIteration

    def on_validation(self, trainer: Trainer, validated: Validated) -> None:
        self._take(trainer, validated)

    def on_epoch_end(self, trainer: Trainer, summary: EpochSummary) -> None:
        self._take(trainer, summary)

    def on_fit_end(self, trainer: Trainer) -> None:
        """Let the model have the best parameters, where that is wanted."""
        if self._best_values is not None:
            trainer.model.values = self._best_values

    def state(self) -> dict[str, Any]:
        return {
            "rule": self._rule.state(),
            "best_step": self.best_step,
            "stopped_step": self.stopped_step,
            "best_values": self._best_values,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._rule.restore(state["rule"])
        self.best_step, self.stopped_step = state["best_step"], state["stopped_step"]
        self._best_values = state["best_values"]

    def _forget(self) -> None:
        self._rule = Patience(self.patience, self.min_delta, maximise=is_maximised(self.monitor))
        self.best_step = self.stopped_step = self._best_values = None

    def _take(self, trainer: Trainer, record: Validated | EpochSummary) -> None:
        value = monitored(self.monitor, record)
        if value is None:
            return
        if self._rule.take(value):
            self.best_step = trainer.step
            if self.restore_best:
                self._best_values = trainer.model.values.copy()
        elif self._rule.is_over:
            self.stopped_step = trainer.step
            raise StopIteration


@final
@dataclass(eq=False)
class BestModel:
    """Keeps the parameters with which what is monitored was best.

    path: of a file that gets the model, as `save_model` writes it, whenever it is better; what can't be written is
    warned of, training goes on, and the end of the call tries again.  monitor: as for `EarlyStopping`.

    model: the best one so far, apart from the one that is trained.  best, best_step: as of `EarlyStopping`.
    """

    path: str | Path | None = None
    monitor: str = "validation_loss"
    best_step: int | None = field(init=False, default=None, repr=False)
    _rule: Patience = field(init=False, repr=False)
    _trained: Sequential | None = field(init=False, default=None, repr=False)
    _values: Array | None = field(init=False, default=None, repr=False)
    _is_saved: bool = field(init=False, default=True, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, path=optional(check_path), monitor=check_monitor)
        self._forget()

    @property
    def best(self) -> float | None:
        return self._rule.best

    @property
    def model(self) -> Sequential:
        """Raises ValueError where there is none yet."""
        if self._trained is None or self._values is None:
            raise ValueError(f"There is no best model yet: no {self.monitor} has been seen.")
        return with_values(self._trained, self._values)

    def on_fit_begin(self, trainer: Trainer, *, validates: bool) -> None:
        """Raise ValueError and WriteError where the call has not what is monitored, or the model can't be saved."""
        check_monitored("BestModel", self.monitor, trainer.model, validates=validates, metrics=trainer.metrics)
        if self.path is not None:
            check_writable(self.path)
            check_can_be_saved(trainer.model)
        if trainer.step == 0:
            self._forget()
        self._trained = trainer.model

    def on_validation(self, trainer: Trainer, validated: Validated) -> None:
        self._take(trainer, validated)

    def on_epoch_end(self, trainer: Trainer, summary: EpochSummary) -> None:
        self._take(trainer, summary)

    def on_fit_end(self, trainer: Trainer) -> None:
        """Save what could not be saved."""
        self._save()

    def state(self) -> dict[str, Any]:
        return {"rule": self._rule.state(), "best_step": self.best_step, "values": self._values}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Keep what was kept; the file may be older or newer, or another machine's, and is written again."""
        self._rule.restore(state["rule"])
        self.best_step, self._values = state["best_step"], state["values"]
        self._is_saved = self._values is None

    def _forget(self) -> None:
        self._rule = Patience(1, maximise=is_maximised(self.monitor))
        self.best_step = self._values = None
        self._is_saved = True
        self._attempts = Attempts(lambda message: warnings.warn(message, TrainingWarning, stacklevel=2))

    def _take(self, trainer: Trainer, record: Validated | EpochSummary) -> None:
        value = monitored(self.monitor, record)
        if value is not None and self._rule.take(value):
            self.best_step, self._values = trainer.step, trainer.model.values.copy()
            self._is_saved = False
            self._save()

    def _save(self) -> None:
        if self.path is not None and not self._is_saved:
            with self._attempts.writing(self.path):
                save_model(self.model, self.path)
                self._is_saved = True


@final
@dataclass(eq=False)
class ReduceOnPlateau:
    """Lowers the learning rate when what is monitored has not become better for too long.

    After more than `patience` validations (or epochs) in a row that are no better by more than min_delta, it takes
    `Trainer.lr_scale` times `factor`, down to min_scale, and counts from 0 again; as torch.optim's ReduceLROnPlateau
    does with threshold_mode="abs".  monitor: as for `EarlyStopping`.
    """

    monitor: str = "validation_loss"
    factor: float = 0.1
    patience: int = 10
    min_delta: float = 1e-4
    min_scale: float = 1e-8
    _rule: Patience = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(
            self,
            monitor=check_monitor,
            factor=lambda name, value: check_float(name, value, above=0, below=1),
            patience=lambda name, value: check_int(name, value, 0),
            min_delta=check_not_negative,
            min_scale=check_positive,
        )
        self._forget()

    def on_fit_begin(self, trainer: Trainer, *, validates: bool) -> None:
        """Raise ValueError and TypeError unless the call has what is monitored, and the optimizer a learning rate."""
        check_monitored("ReduceOnPlateau", self.monitor, trainer.model, validates=validates, metrics=trainer.metrics)
        trainer.lr_scale = trainer.lr_scale  # raises where there is nothing to scale
        if trainer.step == 0:
            self._forget()

    def on_validation(self, trainer: Trainer, validated: Validated) -> None:
        self._take(trainer, validated)

    def on_epoch_end(self, trainer: Trainer, summary: EpochSummary) -> None:
        self._take(trainer, summary)

    def state(self) -> dict[str, Any]:
        return self._rule.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self._rule.restore(state)

    def _forget(self) -> None:
        self._rule = Patience(self.patience + 1, self.min_delta, maximise=is_maximised(self.monitor))

    def _take(self, trainer: Trainer, record: Validated | EpochSummary) -> None:
        value = monitored(self.monitor, record)
        if value is None or self._rule.take(value) or not self._rule.is_over:
            return
        self._rule.num_bad = 0
        trainer.lr_scale = min(trainer.lr_scale, max(trainer.lr_scale * self.factor, self.min_scale))
