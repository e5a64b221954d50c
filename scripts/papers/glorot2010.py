"""Glorot and Bengio 2010: initial weights under which activations and gradients keep their size through the layers.

"Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010. Five hidden layers of 1000
tanh units are initialised in two ways: with the standard U(-1/√n, 1/√n), where n is the number of a unit's inputs, and
with the normalised U(-√6/√(n + m), √6/√(n + m)) of equation 16, where m is that of its outputs. Before training we
measure the variances by layer whose histograms are figures 6 to 8: of activations, of back-propagated gradients (with
respect to what goes into tanh), and of the gradients of weights. Then both are trained, from three seeds each.

Scaled down: figures 6 to 8 are of Shapeset-3x2, ours are of MNIST, for which table 1 has test errors. What is trained
has layers of 500 units, batches of 120 instead of 10, and 6 passes over MNIST instead of as many as lower a validation
error. The learning rate of each initialisation is the best of 0.03, 0.1, 0.3 and 1 for another seed after 2 passes.
Every batch is cut into 4 shards, so the numbers are the same on any backend with 1 to 4 workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import Claim, Findings, Trials, error, images, of_seeds, paper, spread

from dist_relu import nn
from dist_relu.analysis import activation_statistics, gradient_flow
from dist_relu.data import Dataset, Split
from dist_relu.optim import SGD
from dist_relu.reports.plots.style import draw, legend_below, look

DEPTH = 5
NUM_SEEDS = 3
INITS: dict[str, nn.Initializer] = {"standard": nn.HeUniform(gain=3**-0.5), "normalised": nn.GlorotUniform()}
LR = {"standard": 0.3, "normalised": 0.1}
PAPERS_TEST_ERROR = ["1.76", "1.64"]
"""Of tanh on MNIST, in %: table 1."""

FALLS, STAYS = 10, 3
"""Factors by which a variance changes from one end of the hidden layers to the other: more than one, less than one."""


@dataclass(frozen=True)
class Variances:
    """By hidden layer, from the input on, before training."""

    activations: list[float]
    gradients: list[float]
    weights: list[float]

    @property
    def fall_of_activations(self) -> float:
        return self.activations[0] / self.activations[-1]

    @property
    def fall_of_gradients(self) -> float:
        return self.gradients[-1] / self.gradients[0]

    @property
    def range_of_weights(self) -> float:
        return max(self.weights) / min(self.weights)


@dataclass(frozen=True)
class Training:
    """Errors in %, by seed; those of epochs, (seeds, epochs), are means of what was seen while they went on."""

    train: list[float]
    test: list[float]
    epochs: list[list[float]]


def reproduce(trials: Trials, quick: bool, seed: int) -> Findings:
    data = images(quick)
    wide, units, epochs = (100, 50, 1) if quick else (1000, 500, 6)
    seeds = range(seed, seed + NUM_SEEDS)
    trials.expect(len(INITS) * len(seeds))
    before = {name: measure(trials, tanh_network(wide, name), data.test, seed) for name in INITS}
    after = {name: learn(trials, units, name, data, seeds, epochs) for name in INITS}
    return Findings(
        columns=("", *(column for name in INITS for column in (name, "paper"))),
        rows=[
            row("variance of activations, layer 1 / 5", [f"{v.fall_of_activations:.1f}" for v in before.values()]),
            row("variance of gradients, layer 5 / 1", [f"{v.fall_of_gradients:.1f}" for v in before.values()]),
            row("variance of weights' gradients, max / min", [f"{v.range_of_weights:.1f}" for v in before.values()]),
            row("error on samples trained on, %", [spread(training.train) for training in after.values()]),
            row("test error, %", [spread(training.test) for training in after.values()], PAPERS_TEST_ERROR),
        ],
        claims=[*claims_about_sizes(before), *claims_about_learning(after)],
        draw=lambda path: paint(before, after, path),
        numbers={
            "before": {name: asdict(variances) for name, variances in before.items()},
            "after": {name: asdict(training) for name, training in after.items()},
        },
    )


def tanh_network(units: int, init: str) -> nn.Sequential:
    layers: list[nn.Layer] = []
    for _ in range(DEPTH):
        layers += [nn.Dense(units, init=INITS[init]), nn.Tanh()]
    return nn.Sequential(*layers, nn.Dense(10, init=INITS[init]))


def measure(trials: Trials, model: nn.Sequential, data: Dataset, seed: int) -> Variances:
    model.build(data.x.shape[1:]).initialize(seed)
    layers = activation_statistics(trials.coordinator, model, data.x)
    flow = gradient_flow(trials.coordinator, model, data)
    hidden = range(0, 2 * DEPTH, 2)  # the numbers of dense layers; after each of them comes its tanh
    return Variances(
        [layers[number + 1].variance for number in hidden],
        [flow.outputs[layers[number].name].variance for number in hidden],
        [flow.weights[f"{number}.weight"].variance for number in hidden],
    )


def learn(trials: Trials, units: int, init: str, data: Split, seeds: Sequence[int], epochs: int) -> Training:
    training = Training([], [], [])
    for seed in seeds:
        model = tanh_network(units, init)
        result = trials.fit(
            f"{init}, seed {seed}", model, data.train, SGD(LR[init]), epochs=epochs, batch_size=120, shards=4, seed=seed
        )
        training.train.append(error(trials.coordinator.evaluate(model, data.train)))
        training.test.append(error(trials.coordinator.evaluate(model, data.test)))
        training.epochs.append([error(epoch) for epoch in result.epochs])
    return training


def claims_about_sizes(before: dict[str, Variances]) -> list[Claim]:
    standard, normalised = before["standard"], before["normalised"]
    falls = [standard.fall_of_activations, standard.fall_of_gradients]
    stays = [normalised.fall_of_activations, normalised.fall_of_gradients]
    return [
        Claim(
            "With the standard initialisation activations shrink from layer to layer, and gradients on their way back: "
            f"both variances fall by a factor of more than {FALLS}",
            min(falls) > FALLS,
            "by {:.1f} and {:.1f}".format(*falls),
        ),
        Claim(
            "With the normalised initialisation both keep their size: the variances change by a factor of less than "
            f"{STAYS}",
            all(1 / STAYS < fall < STAYS for fall in stays),
            "by {:.1f} and {:.1f}".format(*stays),
        ),
        Claim(
            "Though the gradients that are propagated back get smaller with the standard initialisation, those of "
            f"weights do not: the variances of all hidden layers' weights differ by a factor of less than {STAYS}",
            standard.range_of_weights < STAYS,
            f"by {standard.range_of_weights:.1f}",
        ),
    ]


def claims_about_learning(after: dict[str, Training]) -> list[Claim]:
    claims = []
    for what, errors in (
        ("error on the samples trained on", [training.train for training in after.values()]),
        ("test error", [training.test for training in after.values()]),
    ):
        standard, normalised = errors
        claims.append(
            Claim(
                f"The normalised initialisation ends with the lower {what}, {of_seeds(standard)}",
                sum(normalised) < sum(standard),
                f"{spread(normalised)} % beside {spread(standard)} %",
            )
        )
    return claims


def paint(before: dict[str, Variances], after: dict[str, Training], path: Path) -> None:
    def panels(activations: Any, gradients: Any, weights: Any, errors: Any) -> None:
        for number, (name, seen) in enumerate(before.items()):
            for axes, variances in (
                (activations, seen.activations),
                (gradients, seen.gradients),
                (weights, seen.weights),
            ):
                axes.plot(range(1, DEPTH + 1), variances, label=name, **look(number))
                axes.set(xlabel="hidden layer", yscale="log")
        activations.set(title="activations", ylabel="variance before training")
        gradients.set_title("gradients, propagated back")
        weights.set(title="gradients of weights", ylabel="variance before training")
        for number, training in enumerate(after.values()):
            for line in training.epochs:
                errors.plot(range(1, len(line) + 1), line, **look(number))
        errors.set(
            title=f"training, seeds of each: {len(training.epochs)}",
            xlabel="epoch",
            ylabel="error in %",
            ylim=(0, None),
        )
        errors.xaxis.get_major_locator().set_params(integer=True)

        legend_below(activations)

    draw(2, panels, path, rows=2)


def row(what: str, ours: Sequence[str], papers: Sequence[str] = ("", "")) -> list[str]:
    return [what, *(cell for pair in zip(ours, papers, strict=True) for cell in pair)]


if __name__ == "__main__":
    paper("glorot2010", reproduce, __doc__)
