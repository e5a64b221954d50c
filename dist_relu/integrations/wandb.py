"""A callback that lets Weights & Biases keep what becomes of a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from dist_relu.core.checks import check_bool, check_fields, instance_of, optional
from dist_relu.engine.results import Validated
from dist_relu.integrations.tracking import Meter, Patient, ending, metrics_of, parameters_of, saved_model
from dist_relu.run.agenda import parse_every
from dist_relu.run.trainer import Trainer

__all__ = ["WandbLog"]

_EXIT_CODES = {"finished": 0, "interrupted": 130, "failed": 1}


@final
@dataclass(eq=False)
class WandbLog:
    """Tells Weights & Biases of a run: what it is, loss, accuracy, learning rate and speed, validations, and the model.

    It goes into the run of `wandb.init` that is there, or begins one, in `project` and under `run_name`, and finishes
    that with each call of `fit`. A run that goes on, also one that is resumed, goes on in the same one. Where it is
    kept wandb decides: WANDB_MODE=offline writes a folder, which `wandb sync` uploads.
    every: how often loss and its kin are told, as for callbacks: a number of steps, "1epoch", "30s".
    log_model: keep the model as an artifact, when a call of `fit` ends.

    What wandb does not take later is warned of, and training goes on.  Raises ImportError without wandb.
    run_id: of the run of Weights & Biases, None before it has begun.
    """

    project: str | None = None
    run_name: str | None = None
    every: int | str = "1epoch"
    log_model: bool = True
    run_id: str | None = field(init=False, default=None)
    _run: Any = field(init=False, default=None, repr=False)
    _meter: Meter = field(init=False, repr=False)
    _patient: Patient = field(init=False, repr=False)
    _is_ours: bool = field(init=False, default=False, repr=False)
    _handled: BaseException | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        text = optional(instance_of(str))
        check_fields(self, project=text, run_name=text, log_model=check_bool)
        parse_every(self.every)
        _wandb()

    def on_fit_begin(self, trainer: Trainer, *, validates: bool) -> None:
        """Begin the run of Weights & Biases, or go on with it; raises what wandb does."""
        wandb = _wandb()
        self._meter, self._patient = Meter(trainer), Patient("Weights & Biases")
        self._handled = sys.exception()
        if trainer.step == 0:
            self.run_id = None
        self._is_ours = wandb.run is None
        if wandb.run is None:
            wandb.init(project=self.project, name=self.run_name, id=self.run_id, resume="allow")
        self._run, self.run_id = wandb.run, wandb.run.id
        self._run.config.update(parameters_of(trainer), allow_val_change=True)

    def on_steps(self, trainer: Trainer) -> None:
        self._log(self._meter.read(trainer), trainer.step)

    def on_validation(self, trainer: Trainer, validated: Validated) -> None:
        self._log(metrics_of(validated), validated.step)

    def on_fit_end(self, trainer: Trainer) -> None:
        """Keep the model, and finish the run of Weights & Biases, if it was begun here."""
        run, self._run = self._run, None
        with self._patient.trying():
            if self.log_model:
                artifact = _wandb().Artifact(f"model-{self.run_id}", type="model")
                with saved_model(trainer) as path:
                    artifact.add_file(str(path), policy="mutable")
                run.log_artifact(artifact)
        with self._patient.trying():
            if self._is_ours:
                run.finish(exit_code=_EXIT_CODES[ending(self._handled)])

    def state(self) -> dict[str, Any]:
        return {"run_id": self.run_id}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.run_id = state["run_id"]

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        with self._patient.trying():
            self._run.log(dict(metrics), step=step)


def _wandb() -> Any:
    try:
        import wandb
    except ImportError:
        raise ImportError("WandbLog needs wandb. Install it: pip install 'dist_relu[wandb]'.") from None
    return wandb
