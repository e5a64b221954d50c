"""Xu, Wang, Chen and Li 2015: a slope below zero helps, and a random one keeps a network from overfitting.

"Empirical evaluation of rectified activations in convolutional network", arXiv:1505.00853. A network in network learns
CIFAR-10 with ReLU, leaky ReLU of slopes 1/100 and 1/5.5, PReLU, whose slopes are learnt, and RReLU, whose slopes are
drawn at random while the network learns. Here a small one, a convolution of 1 x 1 after each larger one, learns from so
few images of CIFAR-10 that it can overfit, each channel standardised, without regularisation, four times from different
seeds. One kind is clearly better when the mean difference, seed by seed, is larger than 0 by Student's t test, at a
one-sided level of 2.5 %. How well the images that were learnt from are fitted is told by the loss on them. PReLU has a
slope for each filter and unit. RReLU draws slopes from U(1/8, 1/3) and tests with their mean, where the paper divides
by what it draws from U(3, 8), and tests with 1/5.5.

Scaled down: the first 2560 images of 50,000; two blocks instead of three, with 32 filters of 5 x 5, which move by 2
pixels, and 64 of 3 x 3; then 128 dense units instead of means of maps, and no dropout, so that it overfits within 30
epochs.
Every batch is cut into 4 shards, so the numbers are the same on any backend with 1 to 4 workers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from common import Claim, Findings, Trials, clearly_lower, colour_images, error, paper, spread

from dist_relu import nn
from dist_relu.data import Dataset, Split
from dist_relu.optim import SGD, Cosine
from dist_relu.reports.plots.style import draw, legend_below, log_scale, look

RELU, LEAKY, VERY_LEAKY, PRELU, RRELU = "ReLU", "leaky, 1/100", "leaky, 1/5.5", "PReLU", "RReLU"
ACTIVATIONS: dict[str, Callable[[int], nn.Layer]] = {
    RELU: lambda channels: nn.ReLU(),
    LEAKY: lambda channels: nn.LeakyReLU(1 / 100),
    VERY_LEAKY: lambda channels: nn.LeakyReLU(1 / 5.5),
    PRELU: nn.PReLU,
    RRELU: lambda channels: nn.RReLU(1 / 8, 1 / 3),
}
PAPERS_ERRORS = {
    RELU: ("0.318", "12.45"),
    LEAKY: ("0.31", "12.66"),
    VERY_LEAKY: ("0.362", "11.20"),
    PRELU: ("0.178", "11.79"),
    RRELU: ("0.550", "11.19"),
}
"""In %, on the samples learnt from and on those to test with."""
NUM_SEEDS = 4
NUM_IMAGES = 2560
LR = 0.01


@dataclass(frozen=True)
class Outcome:
    """By seed: errors in %, and the mean loss on the samples learnt from.

    epochs: losses while learning, (seeds, epochs).
    """

    train_errors: list[float]
    train_losses: list[float]
    test_errors: list[float]
    epochs: list[list[float]]


def reproduce(trials: Trials, quick: bool, seed: int) -> Findings:
    data, epochs = colour_images(quick, NUM_IMAGES), 2 if quick else 30
    seeds = range(seed, seed + (2 if quick else NUM_SEEDS))
    trials.expect(len(ACTIVATIONS) * len(seeds))
    found = {}
    for name in ACTIVATIONS:
        outcome = found[name] = Outcome([], [], [], [])
        for each in seeds:
            learn(trials, name, data, epochs, each, outcome)
    return Findings(
        columns=["", "training loss x 1000", "training error", "paper", "test error", "paper"],
        rows=[
            [
                name,
                spread(thousandths(outcome.train_losses)),
                f"{spread(outcome.train_errors)} %",
                f"{PAPERS_ERRORS[name][0]} %",
                f"{spread(outcome.test_errors)} %",
                f"{PAPERS_ERRORS[name][1]} %",
            ]
            for name, outcome in found.items()
        ],
        claims=claims(found),
        draw=lambda path: paint(found, path),
        numbers={name: asdict(outcome) for name, outcome in found.items()},
    )


def learn(trials: Trials, name: str, data: Split, epochs: int, seed: int, outcome: Outcome) -> None:
    """Train a network from a seed, and add what comes of it."""
    model = network(name, data.train)
    rule = SGD(Cosine(LR, epochs), momentum=0.9)
    result = trials.fit(
        f"{name}, seed {seed}", model, data.train, rule, epochs=epochs, batch_size=64, shards=4, seed=seed
    )
    fitted = trials.coordinator.evaluate(model, data.train)
    outcome.train_errors.append(error(fitted))
    outcome.train_losses.append(fitted.loss)
    outcome.test_errors.append(error(trials.coordinator.evaluate(model, data.test)))
    outcome.epochs.append([epoch.loss for epoch in result.epochs])


def network(name: str, data: Dataset) -> nn.Sequential:
    activation = ACTIVATIONS[name]
    assert data.image_shape is not None
    model = nn.Sequential(
        nn.Reshape(data.image_shape),
        nn.Conv2d(32, 5, stride=2),
        activation(32),
        nn.Conv2d(32, 1),
        activation(32),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 3),
        activation(64),
        nn.Conv2d(64, 1),
        activation(64),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dense(128),
        activation(128),
        nn.Dense(10),
    )
    return nn.standardized(model, data.x)


def claims(found: dict[str, Outcome]) -> list[Claim]:
    tests = {name: outcome.test_errors for name, outcome in found.items()}
    losses = {name: thousandths(outcome.train_losses) for name, outcome in found.items()}
    return [
        *(
            Claim(
                f"{name} has a clearly lower test error than {than}",
                clearly_lower(tests[name], tests[than]),
                f"{spread(tests[name])} % beside {spread(tests[than])} %",
            )
            for name, than in ((VERY_LEAKY, RELU), (PRELU, RELU), (RRELU, RELU), (VERY_LEAKY, LEAKY))
        ),
        Claim(
            "PReLU fits what it learns from best: its training loss is clearly lower than that of each of the others",
            all(clearly_lower(losses[PRELU], others) for others in without(PRELU, losses)),
            f"1000 times the loss: {spread(losses[PRELU])}; the lowest mean of the others is "
            f"{min(map(mean, without(PRELU, losses))):.2f}",
        ),
        Claim(
            "RReLU fits what it learns from least: its training loss is clearly higher than that of each of the others",
            all(clearly_lower(others, losses[RRELU]) for others in without(RRELU, losses)),
            f"1000 times the loss: {spread(losses[RRELU])}; the highest mean of the others is "
            f"{max(map(mean, without(RRELU, losses))):.2f}",
        ),
        Claim(
            "RReLU has the lowest test error of all, as a mean over seeds",
            mean(tests[RRELU]) < min(map(mean, without(RRELU, tests))),
            f"{mean(tests[RRELU]):.2f} %; the lowest of the others is {min(map(mean, without(RRELU, tests))):.2f} %",
        ),
    ]


def without(name: str, values: dict[str, list[float]]) -> list[list[float]]:
    """The values of all others."""
    return [others for other, others in values.items() if other != name]


def thousandths(losses: list[float]) -> list[float]:
    return [1000 * loss for loss in losses]


def paint(found: dict[str, Outcome], path: Path) -> None:
    def panels(learning: Any, ours: Any, papers: Any) -> None:
        for number, (name, outcome) in enumerate(found.items()):
            losses = np.mean(outcome.epochs, axis=0)
            learning.plot(range(1, len(losses) + 1), losses, label=name, markevery=len(losses) // 8 + 1, **look(number))
            centre = mean(outcome.test_errors)
            ends = [[centre - min(outcome.test_errors)], [max(outcome.test_errors) - centre]]
            ours.errorbar([number], [centre], ends, capsize=3, **look(number))
            papers.plot([number], [float(PAPERS_ERRORS[name][1])], **look(number))
        learning.set(title="while learning, mean of seeds", xlabel="epoch", ylabel="training loss")
        log_scale(learning)
        ours.set(title="ours: mean and range of seeds", ylabel="test error in %")
        papers.set(title="the paper's", ylabel="test error in %")
        for axes in (ours, papers):
            axes.set_xticks(range(len(found)), list(found), rotation=35, ha="right")
            axes.grid(axis="x", visible=False)
        legend_below(learning)

    draw(3, panels, path)


if __name__ == "__main__":
    paper("xu2015", reproduce, __doc__)
