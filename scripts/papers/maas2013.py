"""Maas, Hannun and Ng 2013: rectifiers beat tanh in deep networks, their codes are sparse, and leaks change little.

"Rectifier nonlinearities improve neural network acoustic models", ICML 2013 workshop on deep learning for audio, speech
and language processing. Networks of 2, 3 and 4 hidden layers of 2048 units learn to recognise speech, with tanh, ReLU
and leaky ReLU (slope 0.01), without regularisation; table 1 has their word error rates. Units of the last of 4 hidden
layers are compared by how often they are on: above 0, or for tanh beyond 0.95 on either side. Here such networks learn
CIFAR-10, each input standardised, with Nesterov's momentum, each kind with the best of three learning rates: that of
the fewest errors of 3 hidden layers on a sixth of the training samples that was set apart for this. What units do is
measured on the samples to test with. One kind is clearly better when the mean difference, seed by seed, is larger than
0 by Student's t test, at a one-sided level of 2.5 %.

Scaled down: the first 10,240 images of CIFAR-10, shrunk to 16 x 16 pixels, instead of 300 hours of telephone speech
(Switchboard), and therefore test errors instead of word error rates; 256 units in a layer; 5 epochs, with 3 seeds.
Every batch is cut into 4 shards, so the numbers are the same on any backend with 1 to 4 workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import Claim, Findings, Trials, clearly_lower, colour_images, error, lower_by, paper, spread

from dist_relu import nn
from dist_relu.core.arrays import Array
from dist_relu.data import Dataset, Split
from dist_relu.errors import TrainingDiverged
from dist_relu.optim import SGD, Cosine
from dist_relu.reports.plots.style import draw, legend_below, look

TANH, RELU, LEAKY = "tanh", "ReLU", "leaky ReLU"
LAYERS: dict[str, tuple[type[nn.Tanh | nn.ReLU | nn.LeakyReLU], nn.Initializer]] = {
    TANH: (nn.Tanh, nn.GlorotNormal()),
    RELU: (nn.ReLU, nn.HeNormal()),
    LEAKY: (nn.LeakyReLU, nn.HeNormal()),
}
DEPTHS = (2, 3, 4)
SATURATED = 0.95
LRS = (0.01, 0.03, 0.1)
NUM_SEEDS = 3
NUM_IMAGES = 10_240
ALIKE = 2
"""Standard errors of a mean difference between kinds that do equally well, at most."""
PAPERS_WORD_ERRORS = {TANH: (27.7, 26.4, 25.9), RELU: (25.7, 24.4, 23.6), LEAKY: (25.6, 24.3, 23.7)}
"""In %, by depth: table 1, the whole evaluation set."""


@dataclass(frozen=True)
class Size:
    """Of all networks."""

    units: int
    epochs: int


@dataclass(frozen=True)
class Outcome:
    """Of the networks of a kind and depth, by seed.

    errors: in %, on the samples to test with.  on: the shares of these for which the units of the last hidden layer are
    on, (units,) each.  zeros: the share in % of what comes out of that layer.
    """

    errors: list[float]
    on: list[Array]
    zeros: list[float]

    def shares_on(self) -> list[float]:
        return [100 * float(on.mean()) for on in self.on]

    def never_on(self) -> list[int]:
        return [int((on == 0).sum()) for on in self.on]


Outcomes = Mapping[tuple[str, int], Outcome]


def reproduce(trials: Trials, quick: bool, seed: int) -> Findings:
    whole = colour_images(quick, NUM_IMAGES)
    data = Split(halved(whole.train), halved(whole.test))
    size = Size(32, 4) if quick else Size(256, 5)
    seeds = range(seed, seed + (2 if quick else NUM_SEEDS))
    trials.expect(len(LAYERS) * (len(LRS) + len(DEPTHS) * len(seeds)))
    lrs = {kind: best_lr(trials, kind, size, data.train, seed) for kind in LAYERS}
    found: dict[tuple[str, int], Outcome] = {}
    for kind, lr in lrs.items():
        for depth in DEPTHS:
            outcome = found[kind, depth] = Outcome([], [], [])
            for each in seeds:
                model = learn(trials, kind, depth, size, data.train, lr, each)
                outcome.errors.append(error(trials.coordinator.evaluate(model, data.test)))
                last = trials.coordinator.activations(model, data.test.x)[-2]
                outcome.on.append(shares_on(kind, last))
                outcome.zeros.append(100 * float((last == 0).mean()))
    return Findings(
        columns=["", "lr", "layers", "test error, %", "paper: words, %", "units on, %", "zeros, %", "never on"],
        rows=[
            [
                kind if depth == DEPTHS[0] else "",
                f"{lrs[kind]:g}",
                str(depth),
                spread(outcome.errors),
                str(PAPERS_WORD_ERRORS[kind][DEPTHS.index(depth)]),
                spread(outcome.shares_on(), 0),
                spread(outcome.zeros, 0),
                spread(outcome.never_on(), 0),
            ]
            for (kind, depth), outcome in found.items()
        ],
        claims=[*claims_about_errors(found), *claims_about_codes(found)],
        draw=lambda path: paint(found, path),
        numbers={
            "lrs": lrs,
            "found": [
                {
                    "kind": kind,
                    "depth": depth,
                    "test_errors": outcome.errors,
                    "on": outcome.shares_on(),
                    "zeros": outcome.zeros,
                    "never_on": outcome.never_on(),
                }
                for (kind, depth), outcome in found.items()
            ],
        },
    )


def halved(data: Dataset) -> Dataset:
    """Images of half the height and width, the means of 2 x 2 pixels, as flat rows."""
    assert data.image_shape is not None
    height, width, channels = data.image_shape
    fours = np.asarray(data.x).reshape(len(data), height // 2, 2, width // 2, 2, channels)
    return Dataset(fours.mean(axis=(2, 4)).reshape(len(data), -1), data.y, classes=data.classes)


def best_lr(trials: Trials, kind: str, size: Size, data: Dataset, seed: int) -> float:
    """The learning rate that makes the fewest errors on samples that are set apart for this."""
    apart = len(data) // 6
    rest, unseen = Dataset(data.x[apart:], data.y[apart:]), Dataset(data.x[:apart], data.y[:apart])
    errors = {}
    for lr in LRS:
        try:
            model = learn(trials, kind, DEPTHS[1], size, rest, lr, seed)
        except TrainingDiverged:
            continue
        errors[lr] = error(trials.coordinator.evaluate(model, unseen))
    return min(errors, key=errors.__getitem__)


def learn(trials: Trials, kind: str, depth: int, size: Size, data: Dataset, lr: float, seed: int) -> nn.Sequential:
    activation, init = LAYERS[kind]
    layers: list[nn.Layer] = []
    for _ in range(depth):
        layers += [nn.Dense(size.units, init=init), activation()]
    model = nn.Sequential(*layers, nn.Dense(10, init=nn.GlorotNormal()))
    model = nn.standardized(model, data.x)
    rule = SGD(Cosine(lr, size.epochs), momentum=0.9, nesterov=True)
    trials.fit(
        f"{kind}, {depth} layers, lr {lr:g}, seed {seed}",
        model,
        data,
        rule,
        epochs=size.epochs,
        batch_size=128,
        shards=4,
        seed=seed,
    )
    return model


def shares_on(kind: str, last: Array) -> Array:
    """For each unit of the last hidden layer the share of samples for which it is on, (units,).

    last: what comes out of that layer, (samples, units).
    """
    on = np.abs(last) > SATURATED if kind == TANH else last > 0
    share: Array = on.mean(axis=0)
    return share


def claims_about_errors(found: Outcomes) -> list[Claim]:
    def errors(kind: str, depth: int) -> list[float]:
        return found[kind, depth].errors

    def beside(one: str, other: str) -> str:
        return "; ".join(
            f"{depth} layers: {spread(errors(one, depth))} % beside {spread(errors(other, depth))} %"
            for depth in DEPTHS
        )

    return [
        *(
            Claim(
                f"{kind} makes clearly fewer errors than tanh with 2, 3 and 4 layers",
                all(clearly_lower(errors(kind, depth), errors(TANH, depth)) for depth in DEPTHS),
                beside(kind, TANH),
            )
            for kind in (RELU, LEAKY)
        ),
        Claim(
            "2 layers of ReLU make clearly fewer errors than 4 of tanh",
            clearly_lower(errors(RELU, 2), errors(TANH, 4)),
            f"{spread(errors(RELU, 2))} % beside {spread(errors(TANH, 4))} %",
        ),
        Claim(
            "Leaky ReLU and ReLU do equally well: with no number of layers is their mean difference, seed by seed, "
            f"more than {ALIKE} of its standard errors",
            all(alike(errors(RELU, depth), errors(LEAKY, depth)) for depth in DEPTHS),
            beside(LEAKY, RELU),
        ),
    ]


def alike(ours: list[float], others: list[float]) -> bool:
    mean, deviation = lower_by(ours, others)
    return abs(mean) <= ALIKE * deviation


def claims_about_codes(found: Outcomes) -> list[Claim]:
    deepest = DEPTHS[-1]
    relu, tanh = (found[kind, deepest].shares_on() for kind in (RELU, TANH))
    never_relu, never_leaky = (
        [number for depth in DEPTHS for number in found[kind, depth].never_on()] for kind in (RELU, LEAKY)
    )
    return [
        Claim(
            f"The code of ReLU is sparse: in the last of {deepest} hidden layers its units are on for fewer samples "
            "than those of tanh, from each seed",
            all(ours < others for ours, others in zip(relu, tanh, strict=True)),
            f"{spread(relu, 1)} % beside {spread(tanh, 1)} %; the paper has 11 %, and for tanh more than 6 times that",
        ),
        Claim(
            "Units of ReLU die, those of leaky ReLU do not",
            sum(never_relu) > 0 and sum(never_leaky) == 0,
            f"never on: {sum(never_relu)} units in the last hidden layers of {len(never_relu)} networks beside "
            f"{sum(never_leaky)} of {len(never_leaky)}",
        ),
    ]


def paint(found: Outcomes, path: Path) -> None:
    def panels(errors: Any, codes: Any) -> None:
        for number, kind in enumerate(LAYERS):
            seeds = np.array([found[kind, depth].errors for depth in DEPTHS])
            means, where = seeds.mean(axis=1), np.array(DEPTHS) + 0.05 * (number - 1)
            ranges = [means - seeds.min(axis=1), seeds.max(axis=1) - means]
            errors.errorbar(where, means, ranges, label=kind, capsize=3, **look(number))
            on = 100 * np.mean([np.sort(on)[::-1] for on in found[kind, DEPTHS[-1]].on], axis=0)
            codes.plot(np.arange(len(on)), on, label=kind, markevery=max(len(on) // 8, 1), **look(number))
        errors.set(title=f"{seeds.shape[1]} seeds: mean and range", xlabel="hidden layers", ylabel="test error in %")
        errors.set_xticks(DEPTHS)
        codes.set(title=f"last of {DEPTHS[-1]} hidden layers", xlabel="unit, most active first", ylim=(0, 100))
        codes.set_ylabel("on, in % of samples")
        legend_below(codes)

    draw(2, panels, path)


if __name__ == "__main__":
    paper("maas2013", reproduce, __doc__)
