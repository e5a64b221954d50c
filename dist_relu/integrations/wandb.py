"""A callback that lets Weights & Biases keep what becomes of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from dist_relu.core.checks import check_bool, check_fields, instance_of, optional
from dist_relu.integrations.tracking import Ending, TrackingLog, parameters_of
from dist_relu.run.agenda import parse_every
from dist_relu.run.trainer import Trainer

__all__ = ["WandbLog"]

_EXIT_CODES = {"finished": 0, "interrupted": 130, "failed": 1}


@final
@dataclass(eq=False)
class WandbLog(TrackingLog):
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

    def __post_init__(self) -> None:
        text = optional(instance_of(str))
        check_fields(self, project=text, run_name=text, log_model=check_bool)
        parse_every(self.every)
        _wandb()

    @property
    def _service(self) -> str:
        return "Weights & Biases"

    def _begin(self, trainer: Trainer) -> None:
        wandb = _wandb()
        self._is_ours = wandb.run is None
        if wandb.run is None:
            wandb.init(project=self.project, name=self.run_name, id=self.run_id, resume="allow")
        self._run, self.run_id = wandb.run, wandb.run.id
        self._run.config.update(parameters_of(trainer), allow_val_change=True)

    def _log(self, metrics: dict[str, float], step: int) -> None:
        self._run.log(metrics, step=step)

    def _keep(self, model: Path) -> None:
        artifact = _wandb().Artifact(f"model-{self.run_id}", type="model")
        artifact.add_file(str(model), policy="mutable")
        self._run.log_artifact(artifact)

    def _end(self, ending: Ending) -> None:
        self._run.finish(exit_code=_EXIT_CODES[ending])


def _wandb() -> Any:
    try:
        import wandb
    except ImportError:
        raise ImportError("WandbLog needs wandb. Install it: pip install 'dist_relu[wandb]'.") from None
    return wandb
