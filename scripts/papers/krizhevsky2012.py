"""Krizhevsky, Sutskever and Hinton 2012: networks learn several times faster with ReLU than with tanh.

"ImageNet classification with deep convolutional neural networks", NIPS 2012, section 3.1. In figure 1 a four-layer
convolutional network learns CIFAR-10 without any regularisation, once with ReLU and once with tanh, each with the
learning rate that makes it learn as fast as possible: ReLU reaches 25 % training error six times faster. Here such a
network, three convolutions with pooling and a dense layer, learns CIFAR-10, each channel standardised, and we count the
epochs, in steps, to 25 % training error: that of the last tenth of an epoch, of samples before they are learnt from.
The learning rate is the fastest of four in runs from one seed; the epochs are those of runs from three others. As in
the paper's section 5, momentum is 0.9 and batches have 128 samples. Weights are drawn as suits each of them: after He
et al. for ReLU, after Glorot and Bengio for tanh.

Scaled down: the first 10,240 images of 50,000, so that an epoch has 80 steps; 32 filters of 5 x 5, which move by 2
pixels, then 32 and 64 of 3 x 3; at most 40 epochs; 3 seeds.
Every batch is cut into 4 shards, so the numbers are the same on any backend with 1 to 4 workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, final

import numpy as np
from common import Claim, Findings, Trials, colour_images, error, paper, spread

from dist_relu import nn
from dist_relu.core.arrays import Array
from dist_relu.data import Dataset
from dist_relu.engine.watch.records import EpochSummary
from dist_relu.errors import TrainingDiverged
from dist_relu.optim import SGD
from dist_relu.reports.plots.style import GREY, draw, legend_below, look
from dist_relu.run.trainer import Trainer

NETWORKS: dict[str, tuple[type[nn.ReLU | nn.Tanh], nn.Initializer]] = {
    "ReLU": (nn.ReLU, nn.HeNormal()),
    "tanh": (nn.Tanh, nn.GlorotNormal()),
}
LRS = (0.01, 0.02, 0.05, 0.1)
NUM_SEEDS = 3
NUM_IMAGES = 10_240
BATCH_SIZE = 128
TARGETS = (50, 35, 25)
"""Training errors in %; the last is the one that the claims are about."""
SEVERAL = 3
PAPERS_FACTOR = 6


@dataclass(frozen=True)
class Pass:
    """The training error in % after every step: over the samples of the last `width` steps, so it begins with that one.

    Of a run that diverged there are none.
    """

    errors: Array
    width: int
    per_epoch: int

    def epochs(self) -> Array:
        """When each error was reached."""
        return (self.width + np.arange(len(self.errors))) / self.per_epoch

    def epochs_to(self, error: float) -> float:
        """When the error was reached first; infinite when it was not."""
        reached = self.errors <= error
        return float(self.epochs()[reached.argmax()]) if reached.any() else inf

    def epochs_at_least(self, error: float) -> float:
        """What is known of that when the run was cut off: the epochs that it had."""
        return min(self.epochs_to(error), (self.width + len(self.errors) - 1) / self.per_epoch)


@final
class UntilReached:
    """Ends a training after the epoch in which the error is the last target, or less, as a mean."""

    def on_epoch_end(self, trainer: Trainer, summary: EpochSummary) -> None:
        if error(summary) <= TARGETS[-1]:
            raise StopIteration


@dataclass(frozen=True)
class Learning:
    """How fast a network learns.  choosing: a run for each learning rate.  runs: with the fastest, `lr`, by seed."""

    choosing: list[Pass]
    lr: float
    runs: list[Pass]

    def epochs_to(self, error: float) -> list[float]:
        return [run.epochs_to(error) for run in self.runs]


def reproduce(trials: Trials, quick: bool, seed: int) -> Findings:
    data, lrs, epochs = colour_images(quick, NUM_IMAGES).train, LRS[1::2] if quick else LRS, 8 if quick else 40
    seeds = range(seed + 1, seed + (2 if quick else NUM_SEEDS) + 1)
    trials.expect(len(NETWORKS) * (len(lrs) + len(seeds)))
    found: dict[str, Learning] = {}
    for name in NETWORKS:
        choosing = [learn(trials, name, lr, data, epochs, seed) for lr in lrs]
        lr = min(zip(choosing, lrs, strict=True), key=lambda tried: (tried[0].epochs_to(TARGETS[-1]), tried[1]))[1]
        found[name] = Learning(choosing, lr, [learn(trials, name, lr, data, epochs, seed) for seed in seeds])
    return Findings(
        columns=["", "learning rate", *(f"epochs to {error} % error" for error in TARGETS), "paper: to 25 %"],
        rows=[
            *(
                [name, f"{one.lr:g}", *(told(one.epochs_to(error)) for error in TARGETS), ""]
                for name, one in found.items()
            ),
            ["tanh / ReLU", "", *(told_factor(found, error) for error in TARGETS), f"{PAPERS_FACTOR}"],
        ],
        claims=claims(found),
        draw=lambda path: paint(found, lrs, path),
        numbers={
            name: {
                "lrs": lrs,
                "lr": one.lr,
                "epochs_by_lr": [finite(run.epochs_to(TARGETS[-1])) for run in one.choosing],
                "epochs_by_seed": [finite(epochs) for epochs in one.epochs_to(TARGETS[-1])],
            }
            for name, one in found.items()
        },
    )


def learn(trials: Trials, name: str, lr: float, data: Dataset, epochs: int, seed: int) -> Pass:
    per_epoch = -(-len(data) // BATCH_SIZE)
    width = max(per_epoch // 10, 1)
    model = network(name, data)
    try:
        result = trials.fit(
            f"{name}, lr {lr:g}, seed {seed}",
            model,
            data,
            SGD(lr, momentum=0.9),
            epochs=epochs,
            batch_size=BATCH_SIZE,
            shards=4,
            seed=seed,
            callbacks=[UntilReached()],
        )
    except TrainingDiverged:
        return Pass(np.empty(0), width, per_epoch)
    assert result.accuracies is not None
    return Pass(100 * (1 - np.convolve(result.accuracies, np.full(width, 1 / width), "valid")), width, per_epoch)


def network(name: str, data: Dataset) -> nn.Sequential:
    activation, init = NETWORKS[name]
    assert data.image_shape is not None
    model = nn.Sequential(
        nn.Reshape(data.image_shape),
        nn.Conv2d(32, 5, stride=2, init=init),
        activation(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 3, init=init),
        activation(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 3, init=init),
        activation(),
        nn.Flatten(),
        nn.Dense(10, init=nn.GlorotNormal()),
    )
    return nn.standardized(model, data.x)


def faster(found: dict[str, Learning], error: float) -> float:
    """How many times as many epochs tanh needs as ReLU, at least, as means over seeds.

    A run of tanh that never gets there counts with the epochs that it had; 0 when one of ReLU does not.
    """
    return sum(run.epochs_at_least(error) for run in found["tanh"].runs) / sum(found["ReLU"].epochs_to(error))


def claims(found: dict[str, Learning]) -> list[Claim]:
    error = TARGETS[-1]
    relu, tanh = (found[name].epochs_to(error) for name in ("ReLU", "tanh"))
    return [
        Claim(
            f"ReLU reaches {error} % training error in fewer epochs than tanh, from each of {len(relu)} seeds",
            all(ours < others for ours, others in zip(relu, tanh, strict=True)),
            f"{told(relu)} epochs beside {told(tanh)}",
        ),
        Claim(
            f"It does so several times faster: {SEVERAL} times or more, as a mean over seeds",
            faster(found, error) >= SEVERAL,
            f"{told_factor(found, error)} times; the paper has {PAPERS_FACTOR}",
        ),
    ]


def paint(found: dict[str, Learning], lrs: Sequence[float], path: Path) -> None:
    def panels(errors: Any, rates: Any) -> None:
        for number, (name, one) in enumerate(found.items()):
            colour = look(number)["color"]
            for i, run in enumerate(one.runs):
                label = "_" if i else f"{name}, learning rate {one.lr:g}"
                errors.plot(run.epochs(), run.errors, label=label, color=colour, linewidth=0.8, alpha=0.7)
            rates.plot(lrs, [run.epochs_to(TARGETS[-1]) for run in one.choosing], label=name, **look(number))
        errors.axhline(TARGETS[-1], color=GREY, linestyle="--", linewidth=1, label=f"{TARGETS[-1]} %")
        errors.set(title=f"training, {len(one.runs)} seeds each", xlabel="epoch", ylabel="training error in %")
        errors.set_ylim(0, 90)
        rates.set(title=f"epochs to {TARGETS[-1]} % error", xlabel="learning rate", xscale="log", ylabel="epochs")
        rates.set_xticks(lrs, map(str, lrs))
        rates.minorticks_off()
        rates.set_ylim(bottom=0)
        legend_below(errors, rates)

    draw(2, panels, path)


def told(epochs: Sequence[float]) -> str:
    """What a reader wants to know of the epochs of several seeds."""
    return spread(epochs) if max(epochs) < inf else f"{epochs.count(inf)} of {len(epochs)} never"


def told_factor(found: dict[str, Learning], error: float) -> str:
    if inf in found["ReLU"].epochs_to(error):
        return "unknown"
    return f"{'at least ' * (inf in found['tanh'].epochs_to(error))}{faster(found, error):.2f}"


def finite(epochs: float) -> float | None:
    """As JSON has it."""
    return None if epochs == inf else epochs


if __name__ == "__main__":
    paper("krizhevsky2012", reproduce, __doc__)
