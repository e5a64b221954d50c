"""What a change of training does to accuracy, to time, and to what gradients take on a wire: with it, and without."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import nan
from pathlib import Path
from typing import Any, Self, final

import numpy as np

from dist_relu.coordinator import Coordinator
from dist_relu.core.files import strict
from dist_relu.core.untrusted import made
from dist_relu.data import Dataset
from dist_relu.errors import TrainingDiverged
from dist_relu.run.settings import digest_of_data
from dist_relu.run.trainer import Trainer
from dist_relu.scaling import machine
from dist_relu.scaling.folder import OUTCOMES_FILE, add_line, begin_with, read_lines

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

    def line(self) -> str:
        """As a line of JSON."""
        return json.dumps(strict(asdict(self)))

    @classmethod
    def of_json(cls, content: Any) -> Self:
        """Make it of what a line stands for.  Raises ValueError, which says what is not as it should be."""
        return made(cls, content)


def what_if(
    coordinator: Coordinator,
    changes: Mapping[str, Make],
    test: Dataset,
    *,
    epochs: int,
    seeds: Sequence[int],
    folder: str | Path | None = None,
    on_outcome: Callable[[Outcome, int, int], object] | None = None,
) -> list[Outcome]:
    """Train from every seed with every change, in an order that is drawn anew for each seed; collective.

    changes: by name, and a training without any among them.  folder: gets every outcome at once, and what it has of the
    same trainings already is not trained again, so that a comparison that was ended goes on.
    on_outcome: gets each that was trained, how many there are now, and how many there will be.

    Raises ValueError where the folder holds other trainings, or of another machine, and `WriteError`.
    """
    found: dict[tuple[str, int], Outcome] = {}
    if folder is not None:
        folder = Path(folder)
        _begin(coordinator, changes, test, epochs, seeds[0], folder)
        found |= {(one.change, one.seed): one for one in read_outcomes(folder, changes, seeds)}
    for seed in seeds:
        for name in np.random.default_rng(seed).permutation([*changes]).tolist():
            if (name, seed) in found:
                continue
            one = found[name, seed] = _train(coordinator, name, changes[name], test, epochs, seed)
            if folder is not None:
                add_line(folder / OUTCOMES_FILE, one.line())
            if on_outcome:
                on_outcome(one, len(found), len(changes) * len(seeds))
    return [*found.values()]


def read_outcomes(folder: Path, changes: Collection[str], seeds: Collection[int]) -> list[Outcome]:
    """Read what came of these changes from these seeds, see `read_lines`."""
    lines = read_lines(folder / OUTCOMES_FILE, Outcome.of_json, lambda one: None)
    found = {(one.change, one.seed): one for one in lines if one.change in changes and one.seed in seeds}
    return [*found.values()]


def _begin(
    coordinator: Coordinator, changes: Mapping[str, Make], test: Dataset, epochs: int, seed: int, folder: Path
) -> None:
    """Say in the folder what is trained, by what fixes the bits of a run apart from its seed."""
    trainings = {}
    for name, make in changes.items():
        with make(seed) as trainer:
            trainings[name] = {what: value for what, value in trainer.settings.items() if what != "seed"}
    common = {
        "epochs": epochs,
        "test": digest_of_data(test),
        "backend": coordinator.backend,
        "workers": coordinator.workers,
    }
    begin_with(folder, {"comparison": common, "trainings": trainings, "machine": machine.facts()})


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
