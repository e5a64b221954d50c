"""What a change of training does to accuracy, to time, and to what gradients take on a wire: with it, and without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import final

import numpy as np

from dist_relu.coordinator import Coordinator
from dist_relu.data import Dataset
from dist_relu.errors import TrainingDiverged
from dist_relu.run.trainer import Trainer

Make = Callable[[int], Trainer]
"""Makes a run from a seed."""


@final
@dataclass(frozen=True)
class Outcome:
    """A training came to this.

    change: its name.  seed: of the run.  loss: of the last epoch, in training.  score: the accuracy on samples that it
    has not seen, or of real numbers the loss there; NaN, like the loss, where training diverged.
    epoch_s: how long the steps of an epoch took in the mean.  params_sha256: of the model.
    """

    change: str
    seed: int
    loss: float
    score: float
    epoch_s: float
    params_sha256: str


def what_if(
    coordinator: Coordinator,
    changes: Mapping[str, Make],
    test: Dataset,
    *,
    epochs: int,
    seeds: Sequence[int],
    on_outcome: Callable[[Outcome, int, int], object] | None = None,
) -> list[Outcome]:
    """Train from every seed with every change, in an order that is drawn anew for each seed; collective.

    changes: by name, and a training without any among them.  on_outcome: gets each, how many there are, and how many
    there will be.
    """
    found: list[Outcome] = []
    for seed in seeds:
        for name in np.random.default_rng(seed).permutation([*changes]).tolist():
            found.append(_train(coordinator, name, changes[name], test, epochs, seed))
            if on_outcome:
                on_outcome(found[-1], len(found), len(changes) * len(seeds))
    return found


def _train(coordinator: Coordinator, name: str, make: Make, test: Dataset, epochs: int, seed: int) -> Outcome:
    loss = score = nan
    with make(seed) as trainer:
        try:
            loss = trainer.fit(epochs=epochs).epochs[-1].loss
            tested = coordinator.evaluate(trainer.model, test)
            score = tested.loss if tested.accuracy is None else tested.accuracy
        except TrainingDiverged:
            pass
        seconds = trainer.records["seconds"]
        epoch_s = float(seconds.mean() * trainer.steps_per_epoch) if len(seconds) else nan
        return Outcome(name, seed, loss, score, epoch_s, trainer.model.sha256())
