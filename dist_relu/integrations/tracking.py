"""What services that keep experiments are told of a run, and when, whichever they are."""

from __future__ import annotations

import json
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, final

import numpy as np

from dist_relu.checkpoint import save_model
from dist_relu.engine.results import Validated
from dist_relu.errors import TrainingWarning
from dist_relu.run.trainer import Trainer

MODEL_FILE = "model.safetensors"

Ending = Literal["finished", "interrupted", "failed"]


class TrackingLog(ABC):
    """A callback that tells a service of a run: what it is, means over its steps, validations, and the model.

    run_id: of the service's run, None before it has begun; one that goes on, or is resumed, goes on in the same one.
    every, log_model: see the callbacks.
    """

    every: int | str
    log_model: bool
    run_id: str | None
    _meter: _Meter
    _patient: _Patient
    _handled: BaseException | None
    _is_ours: bool
    _is_restored = False

    def on_fit_begin(self, trainer: Trainer, *, validates: bool) -> None:
        """Begin a run of the service, or go on with one.  Raises ConnectionError where that can't be done."""
        self._meter, self._patient = _Meter(trainer), _Patient(self._service)
        self._handled = sys.exception()
        if trainer.step == 0 and not self._is_restored:
            self.run_id = None
        self._is_restored = False
        self._is_ours = False
        try:
            self._begin(trainer)
        except Exception as error:  # networks, disks, servers, and what libraries make of them
            told = " ".join(str(error).split())
            raise ConnectionError(f"{self._service} has begun no run: {type(error).__name__}: {told}") from error

    def on_steps(self, trainer: Trainer) -> None:
        self._tell(self._meter.read(trainer), trainer.step)

    def on_validation(self, trainer: Trainer, validated: Validated) -> None:
        accuracy = {} if validated.accuracy is None else {"validation_accuracy": validated.accuracy}
        measured = {f"validation_{name}": value for name, value in validated.metrics.items()}
        self._tell({"validation_loss": validated.loss, **accuracy, **measured}, validated.step)

    def on_fit_end(self, trainer: Trainer) -> None:
        """Keep the model, and end the service's run, if it was begun here."""
        with self._patient.trying():
            if self.log_model:
                with _saved_model(trainer) as path:
                    self._keep(path)
        with self._patient.trying():
            if self._is_ours:
                self._end(_ending(self._handled))

    def state(self) -> dict[str, Any]:
        return {"run_id": self.run_id}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.run_id, self._is_restored = state["run_id"], True

    def _tell(self, metrics: Mapping[str, float], step: int) -> None:
        with self._patient.trying():
            self._log(dict(metrics), step)

    @property
    @abstractmethod
    def _service(self) -> str:
        """What people call it."""

    @abstractmethod
    def _begin(self, trainer: Trainer) -> None:
        """Be in the run `run_id` of the service, or in another one, and note whether that has begun here."""

    @abstractmethod
    def _log(self, metrics: dict[str, float], step: int) -> None:
        """Log numbers of a step."""

    @abstractmethod
    def _keep(self, model: Path) -> None:
        """Keep this file with the run; it is there as long as this call."""

    @abstractmethod
    def _end(self, ending: Ending) -> None:
        """End the run."""


def parameters_of(trainer: Trainer) -> dict[str, Any]:
    """What fixes the bits of a run, and how large it is, as names and plain values."""
    settings = trainer.settings
    model, data = settings["model"], settings["data"]
    flat = {name: value for name, value in settings.items() if value is not None and name not in ("model", "data")}
    return {
        **flat,
        "layers": json.dumps(model["layers"]),
        "dtype": model["dtype"],
        "num_params": trainer.model.num_params,
        "data_sha256": data["sha256"],
        "samples": data["samples"],
    }


def _ending(before: BaseException | None) -> Ending:
    """How a call of `fit` ends, in `on_fit_end`: by whatever exception is on its way.

    before: the one that was being handled when the call began, if any.
    """
    error = sys.exception()
    if error is before:
        return "finished"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"


@contextmanager
def _saved_model(trainer: Trainer) -> Iterator[Path]:
    """Save the model to a file that is there within the block."""
    with TemporaryDirectory(prefix="dist_relu") as folder:
        save_model(trainer.model, Path(folder) / MODEL_FILE)
        yield Path(folder) / MODEL_FILE


@final
class _Meter:
    """Means over the steps since the last time."""

    def __init__(self, trainer: Trainer) -> None:
        self._step = trainer.step

    def read(self, trainer: Trainer) -> Mapping[str, float]:
        """Mean loss and accuracy over the samples of these steps, their speed, and the learning rate."""
        records = trainer.records[self._step :]
        self._step = trainer.step
        taken = records[np.isfinite(records["loss"])]
        metrics = {"epoch": trainer.step / trainer.steps_per_epoch}
        if len(taken):
            metrics["loss"] = float(np.average(taken["loss"], weights=taken["num_samples"]))
            if trainer.model.predicts != "numbers":
                metrics["accuracy"] = float(taken["num_correct"].sum() / taken["num_samples"].sum())
        if seconds := float(records["seconds"].sum()):
            metrics["samples_per_second"] = float(records["num_samples"].sum()) / seconds
        if trainer.lr is not None:
            metrics["lr"] = trainer.lr
        return metrics


@final
class _Patient:
    """Lets training go on when a service does not take what it is told; that is warned of once."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._has_told = False

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Go on after this block, whatever the service's library raises."""
        try:
            yield
        except Exception as error:  # networks, disks, servers, and what libraries make of them
            if not self._has_told:
                self._has_told = True
                message = f"{self._service} misses something of this run: {type(error).__name__}: {error}"
                warnings.warn(f"{message}. Training goes on.", TrainingWarning, stacklevel=4)
