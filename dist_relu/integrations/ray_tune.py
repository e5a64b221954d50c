"""Runs as trials of Ray Tune: paused, gone on with and resized to the bit, and never trained twice.

Needs Ray Tune: `pip install 'dist_relu[tune]'`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, final

from dist_relu.coordinator import Coordinator, start
from dist_relu.core import machine
from dist_relu.core.checks import check_fields, check_int, check_is, check_seed, instance_of
from dist_relu.core.files import make_folder, write_json
from dist_relu.core.untrusted import made, parse_json, read_file
from dist_relu.data import Dataset
from dist_relu.engine.arguments import Data, dataset_of
from dist_relu.errors import CheckpointError
from dist_relu.nn import Sequential
from dist_relu.nn.description import is_ours
from dist_relu.optim import Optimizer
from dist_relu.run.settings import digest_of_data, digest_of_settings
from dist_relu.run.state import RunState
from dist_relu.run.state_file import load_state, save_state
from dist_relu.run.trainer import Trainer

try:
    from ray import tune
except ImportError as missing:
    raise ImportError(f"Tuning needs Ray Tune ({missing}). Install it: pip install 'dist_relu[tune]'.") from None

__all__ = ["Run", "trainable"]

_STATE, _POSITION, _RESULTS = "state.safetensors", "position.json", "results.json"
_MOST_BYTES = 1 << 26

Results = list[dict[str, float | None]]
"""The metrics of every epoch, from the first one on."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """What a trial trains, and for how many epochs.

    shards: see `Coordinator.fit`; a trial has at most so many workers, and the same bits on any number of them.
    options: further arguments of `Coordinator.trainer`, such as loss or clip_norm.
    """

    model: Sequential
    optimizer: Optimizer
    epochs: int
    batch_size: int
    shards: int
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(
            self,
            model=instance_of(Sequential),
            optimizer=instance_of(Optimizer),
            epochs=check_int,
            batch_size=check_int,
            shards=check_int,
            seed=lambda _, value: check_seed(value),
        )


def trainable(
    make: Callable[[dict[str, Any]], Run],
    data: Data,
    *,
    validation: Data | None = None,
    cache: str | Path | None = None,
) -> Any:
    """What `ray.tune.Tuner` takes to train `make(config)` on `data` for each config.

        tuner = tune.Tuner(trainable(make, data.train, validation=data.test), param_space={"lr": tune.grid_search(...)})

    make: from a trial's config to its run.  data, validation: are put into Ray's object store once.
    Every epoch reports `epoch`, `loss`, `accuracy`, `validation_loss`, `validation_accuracy` and `seconds`; the last
    one ends the trial. Checkpoints are states of the run, so trials that are paused, or move, go on to the same bits. A
    trial has as many workers as CPUs, on one machine: 1, or what `tune.with_resources(trainable, {"CPU": 2})` says, or
    what `ResourceChangingScheduler` gives it meanwhile. Schedulers that change a config midway (PBT) are refused: such
    a run is none that could be made again.
    cache: a folder, shared by all nodes, that keeps the metrics of each run by the digest of all that fixes its bits
    (model, data, settings, versions), and its last state. A trial that was trained before reports them at once, and one
    that was trained for fewer epochs goes on from there. Runs with layers or losses of your own, whose code no digest
    knows, are not kept.
    """
    parameters = {
        "make": make,
        "data": dataset_of(data),
        "validation": None if validation is None else dataset_of(validation),
        "cache": None if cache is None else os.path.abspath(os.path.expanduser(cache)),
    }
    return tune.with_parameters(TrainedByTrainer, **parameters)


@final
class TrainedByTrainer(tune.Trainable):
    """A trial: an epoch of a `Trainer` is a step."""

    def setup(
        self,
        config: dict[str, Any],
        make: Callable[[dict[str, Any]], Run],
        data: Dataset,
        validation: Dataset | None,
        cache: str | None,
    ) -> None:
        """Find out which run it is, and what is known of it."""
        self._run = make(dict(config))
        check_is("make(config)", self._run, Run)
        self._data, self._validation = data, validation
        self._coordinator: Coordinator | None = None
        self._trainer: Trainer | None = None
        self._state: RunState | None = None
        self._epoch = 0
        with start(backend="serial") as alone, self._made(alone, None) as trainer:
            self._digest = _digest_of(trainer, validation)
        self._initial = self._run.model.values.copy()
        is_known = is_ours([self._run.model.layers, *filter(is_dataclass, self._run.options.values())])
        self._cache = None if cache is None or not is_known else Path(cache) / self._digest
        self._results = _read_results(self._cache) if self._cache else []

    def step(self) -> dict[str, Any]:
        """Train for an epoch, or tell what came of it before."""
        self._epoch += 1
        if self._epoch > len(self._results):
            self._train()
        metrics = self._results[self._epoch - 1]
        return {**metrics, "epoch": self._epoch, "done": self._epoch >= self._run.epochs}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the state after the last epoch that was reported, unless it has to be trained again anyway."""
        folder = Path(checkpoint_dir)
        position = {"digest": self._digest, "epoch": self._epoch, "results": self._results[: self._epoch]}
        write_json(folder / _POSITION, position)
        if self._trainer is not None and self._trainer.epoch == self._epoch:
            save_state(self._trainer.state(), folder / _STATE)
        elif self._state is not None and self._state.epoch == self._epoch:
            save_state(self._state, folder / _STATE)

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Go on from there.  Raises CheckpointError for that of another run."""
        folder = Path(checkpoint_dir)
        position = parse_json(read_file(folder / _POSITION, _MOST_BYTES))
        if position["digest"] != self._digest:
            raise CheckpointError(
                "This checkpoint is of another run: its model, data, settings or versions are not those of this trial. "
                "Schedulers that change a trial's config midway can't be used."
            )
        self.cleanup()
        self._epoch = position["epoch"]
        known = made(Results, position["results"])
        self._results = known + self._results[len(known) :]
        self._state = load_state(folder / _STATE) if (folder / _STATE).exists() else None

    def cleanup(self) -> None:
        """End the workers."""
        if self._trainer is not None:
            self._trainer.close()
        if self._coordinator is not None:
            self._coordinator.close()
        self._trainer = self._coordinator = None

    def _train(self) -> None:
        """Train until there are results of the present epoch."""
        trainer = self._trainer or self._started()
        while trainer.epoch < self._epoch:
            result = trainer.fit(epochs=1, validation=self._validation, validate_every="epoch")
            summary = result.epochs[-1]
            metrics = {"loss": summary.loss, "accuracy": summary.accuracy, "seconds": result.seconds}
            if self._validation is not None:
                last = result.validations[-1]
                metrics |= {"validation_loss": last.loss, "validation_accuracy": last.accuracy}
            self._results[trainer.epoch - 1 : trainer.epoch] = [metrics]
        if self._cache:
            make_folder(self._cache)
            save_state(trainer.state(), self._cache / _STATE)
            write_json(self._cache / _RESULTS, self._results)

    def _started(self) -> Trainer:
        """Start workers, and hold the run where most of it is done, but no more than was reported."""
        resources = self.trial_resources
        workers = min(max(int(resources.head_cpus), 1) if resources else 1, self._run.shards)
        self._coordinator = start(workers, backend="local") if workers > 1 else start(backend="serial")
        self._run.model.values = self._initial
        states = [state for state in (self._state, _read_state(self._cache)) if state and state.epoch < self._epoch]
        self._trainer = self._made(self._coordinator, max(states, key=lambda state: state.epoch, default=None))
        self._state = None
        return self._trainer

    def _made(self, coordinator: Coordinator, state: RunState | None) -> Trainer:
        run = self._run
        return coordinator.trainer(
            run.model,
            self._data,
            run.optimizer,
            batch_size=run.batch_size,
            shards=run.shards,
            seed=run.seed,
            state=state,
            **run.options,
        )


def _digest_of(trainer: Trainer, validation: Dataset | None) -> str:
    """The digest of all that results depend on.  trainer: that has not begun."""
    parts = [digest_of_settings(trainer.settings, machine.versions()), trainer.model.sha256()]
    if validation is not None:
        parts.append(digest_of_data(validation))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _read_results(folder: Path) -> Results:
    """What is kept of a run; nothing where it is damaged, for it can be made again."""
    try:
        return made(Results, parse_json(read_file(folder / _RESULTS, _MOST_BYTES)))
    except (OSError, ValueError):
        return []


def _read_state(folder: Path | None) -> RunState | None:
    try:
        return load_state(folder / _STATE) if folder else None
    except (OSError, CheckpointError):
        return None
