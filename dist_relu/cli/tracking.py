"""Services that keep experiments, by their names on the command line."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec

import click

from dist_relu.integrations.tracking import TrackingLog


def trackers_of(names: str | None, *, quiet: bool) -> list[TrackingLog]:
    """What tells these services of a run.  names: some of TRACKERS, with commas between them.

    quiet: what they say of themselves is not printed.  Raises click.UsageError where a library is missing.
    """
    if names is None:
        return []
    _keep_runs_here()
    if quiet:
        os.environ["WANDB_SILENT"] = "true"
    try:
        return [TRACKERS[name]() for name in names.split(",")]
    except ImportError as error:
        raise click.UsageError(f"--report-to {names}: {error}") from None


def _keep_runs_here() -> None:
    """Let the libraries write to the present folder, and nowhere else, unless the environment says where to."""
    os.environ.setdefault("WANDB_MODE", "offline")
    if find_spec("sqlalchemy") is None and "MLFLOW_TRACKING_URI" not in os.environ:  # with it, MLflow writes mlflow.db
        os.environ |= {"MLFLOW_TRACKING_URI": "mlruns", "MLFLOW_ALLOW_FILE_STORE": "true"}


def _mlflow() -> TrackingLog:
    from dist_relu.integrations.mlflow import MLflowLog

    return MLflowLog()


def _wandb() -> TrackingLog:
    from dist_relu.integrations.wandb import WandbLog

    return WandbLog()


TRACKERS: dict[str, Callable[[], TrackingLog]] = {"mlflow": _mlflow, "wandb": _wandb}
