"""A callback that lets MLflow keep what becomes of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from dist_relu.core.checks import check_bool, check_fields, instance_of, optional
from dist_relu.integrations.tracking import Ending, TrackingLog, parameters_of
from dist_relu.run.agenda import parse_every
from dist_relu.run.trainer import Trainer

__all__ = ["MLflowLog"]

_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
_MOST_CHARACTERS = 6000
"""Of a parameter's value, in MLflow."""


@final
@dataclass(eq=False)
class MLflowLog(TrackingLog):
    """Tells MLflow of a run: what it is, loss, accuracy, learning rate and speed, validations, and the model.

    It goes into the run of MLflow that is active, or begins one, in `experiment` and under `run_name`, and ends that
    with each call of `fit`. A run that goes on, also one that is resumed, goes on in the same one. Where it is kept
    MLflow decides: `mlflow.set_tracking_uri`, or MLFLOW_TRACKING_URI.
    every: how often loss and its kin are told, as for callbacks: a number of steps, "1epoch", "30s".
    log_model: keep the model as an artifact, when a call of `fit` ends.

    What MLflow does not take later is warned of, and training goes on.  Raises ImportError without mlflow.
    run_id: of the run of MLflow, None before it has begun.
    """

    experiment: str | None = None
    run_name: str | None = None
    every: int | str = "1epoch"
    log_model: bool = True
    run_id: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        text = optional(instance_of(str))
        check_fields(self, experiment=text, run_name=text, log_model=check_bool)
        parse_every(self.every)
        _mlflow()

    @property
    def _service(self) -> str:
        return "MLflow"

    def _begin(self, trainer: Trainer) -> None:
        mlflow = _mlflow()
        active = mlflow.active_run()
        self._is_ours = active is None
        if active is None:
            active = mlflow.start_run(self.run_id, _experiment_id(mlflow, self.experiment), self.run_name)
        is_new, self.run_id = active.info.run_id != self.run_id, active.info.run_id
        if is_new:
            told = {name: str(value)[:_MOST_CHARACTERS] for name, value in parameters_of(trainer).items()}
            mlflow.log_params(told, run_id=self.run_id)

    def _log(self, metrics: dict[str, float], step: int) -> None:
        _mlflow().log_metrics(metrics, step=step, run_id=self.run_id)

    def _keep(self, model: Path) -> None:
        _mlflow().log_artifact(str(model), run_id=self.run_id)

    def _end(self, ending: Ending) -> None:
        _mlflow().end_run(_STATUS[ending])


def _experiment_id(mlflow: Any, name: str | None) -> str | None:
    """That of an experiment, which is made if need be; `mlflow.set_experiment` would be about other runs, too."""
    if name is None:
        return None
    experiment = mlflow.get_experiment_by_name(name)
    number: str = mlflow.create_experiment(name) if experiment is None else experiment.experiment_id
    return number


def _mlflow() -> Any:
    try:
        import mlflow
    except ImportError:
        raise ImportError("MLflowLog needs mlflow. Install it: pip install 'dist_relu[mlflow]'.") from None
    return mlflow
