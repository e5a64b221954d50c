"""What services that keep experiments are told of a run, whichever they are."""

from __future__ import annotations

import json
import sys
import warnings
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


def metrics_of(validated: Validated) -> dict[str, float]:
    """What a validation has come to, by name."""
    accuracy = {} if validated.accuracy is None else {"validation_accuracy": validated.accuracy}
    return {"validation_loss": validated.loss, **accuracy}


def ending(before: BaseException | None) -> Ending:
    """How a call of `fit` ends, in `on_fit_end`: by whatever exception is on its way.

    before: the one that was being handled when the call began, if any.
    """
    error = sys.exception()
    if error is before:
        return "finished"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"


@contextmanager
def saved_model(trainer: Trainer) -> Iterator[Path]:
    """Save the model to a file that is there within the block."""
    with TemporaryDirectory(prefix="dist_relu") as folder:
        save_model(trainer.model, Path(folder) / MODEL_FILE)
        yield Path(folder) / MODEL_FILE


@final
class Meter:
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
class Patient:
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
