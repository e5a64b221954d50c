"""Le, Jaitly and Hinton 2015: ReLU networks whose recurrent weights begin as the identity remember for long.

"A simple way to initialize recurrent networks of rectified linear units", arXiv:1504.00941. Three recurrences of 100
units learn the adding problem of 150 steps (section 4.1, figure 2) and MNIST pixel by pixel, in 784 steps (section
4.2, figure 3), and also row by row, in 28, which the paper has not: ReLU that begins as the identity (IRNN), ReLU that
begins as He et al. have it, and tanh after Glorot and Bengio. Always predicting 1 has an error of 1/6 on the adding
problem; we count it as solved below 0.01. Gradients through time are those of the adding problem before training.

Scaled down: on the adding problem every one of the paper's 100,000 sequences is seen once, in 6250 steps, by three
seeds; the paper's curves go on for many more. MNIST pixel by pixel is seen 4 times in batches of 64, where the paper
takes a million steps of batches of 16; one seed. So that little suffices we use Adam with a cosine instead of SGD, clip
gradients to a norm of 1, and draw input and output weights with a deviation of 0.03 instead of 0.001. Learning rates
were chosen for the IRNN, where the paper searched for the best one for each network. There is no LSTM.
Every batch is cut into 4 shards, so the numbers are the same on any backend with 1 to 4 workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from common import Claim, Findings, Trials, images, paper, spread

from dist_relu import nn
from dist_relu.analysis import TimeFlow, gradient_through_time
from dist_relu.data import Split, adding, load
from dist_relu.data.dataset import Dataset
from dist_relu.engine.results import FitResult
from dist_relu.nn.layers.activations import Elementwise
from dist_relu.optim import Adam, Cosine
from dist_relu.reports.plots.flow import paint_recurrence
from dist_relu.reports.plots.style import GREY, draw, legend_below, look

UNITS = 100
NUM_SEEDS = 3
WEIGHTS = nn.Normal(0.03)
"""Of inputs, and on the adding problem also of the output."""

KINDS: dict[str, tuple[Elementwise, nn.Initializer]] = {
    "IRNN": (nn.ReLU(), nn.Identity()),
    "ReLU, He": (nn.ReLU(), nn.HeNormal()),
    "tanh, Glorot": (nn.Tanh(), nn.GlorotNormal()),
}

TRIVIAL, SOLVED = 1 / 6, 0.01
STAYS, CHANGES = 3, 10
"""Factors by which the norm of a gradient changes from the last step to the first: less than one, more than one."""

PAPERS_ACCURACY = 97.0
"""Of the IRNN on MNIST, pixel by pixel, in %."""

POINTS = 100
"""Of a curve: each is the median of as many steps as that leaves, since the losses of a few are beyond all bounds."""


@dataclass(frozen=True)
class Adding:
    """On the adding problem, by seed: errors of sequences to test with, the largest loss of a step, and curves."""

    errors: list[float]
    largest: list[float]
    curves: list[list[float]]


@dataclass(frozen=True)
class Reading:
    """On images, as sequences of one form: the accuracy on those to test with, in %, and the curve."""

    accuracy: float
    curve: list[float]


def reproduce(trials: Trials, quick: bool, seed: int) -> Findings:
    sums = Split(adding(400, 20), adding(100, 20, seed=1)) if quick else load("adding:150")
    pictures = images(quick)
    trials.expect(len(KINDS) * (NUM_SEEDS + 2))
    flows = {name: gradients(trials, name, sums.test, seed) for name in KINDS}
    added = {name: add(trials, name, sums, range(seed, seed + NUM_SEEDS)) for name in KINDS}
    side = round(pictures.train.x.shape[1] ** 0.5)
    epochs = 1 if quick else 4
    rows, pixels = (
        {name: read(trials, name, pictures, shape, lr, epochs, seed) for name in KINDS}
        for shape, lr in (((side, side), 5e-4), ((side * side, 1), 1e-4))
    )
    return Findings(
        columns=("", *KINDS, "paper"),
        rows=[
            ["adding, squared error", *(spread(seen.errors, 4) for seen in added.values()), "solved"],
            ["adding, worst batch", *(f"{max(seen.largest):.1e}" for seen in added.values()), ""],
            ["gradient, first / last", *(f"{fall_of(flow):.1e}" for flow in flows.values()), "1"],
            ["rows, right in %", *(f"{seen.accuracy:.2f}" for seen in rows.values()), ""],
            ["pixels, right in %", *(f"{seen.accuracy:.2f}" for seen in pixels.values()), "97"],
        ],
        claims=[*claims_about_adding(added), claim_about_gradients(flows), *claims_about_pixels(pixels)],
        draw=lambda path: paint(added, flows, pixels, path),
        numbers={
            what: {name: asdict(found[name]) for name in KINDS}
            for what, found in (
                ("adding", added),
                ("gradients", flows),
                ("row by row", rows),
                ("pixel by pixel", pixels),
            )
        },
    )


def recurrence(name: str) -> nn.RNN:
    activation, init = KINDS[name]
    return nn.RNN(UNITS, activation, init=WEIGHTS, recurrent_init=init)


def gradients(trials: Trials, name: str, data: Dataset, seed: int) -> TimeFlow:
    model = adder(name).build(data.x.shape[1:]).initialize(seed)
    (flow,) = gradient_through_time(trials.coordinator, model, (data.x[:1024], data.y[:1024]))
    return flow


def adder(name: str) -> nn.Sequential:
    return nn.Sequential(recurrence(name), nn.Dense(1, init=WEIGHTS))


def add(trials: Trials, name: str, data: Split, seeds: range) -> Adding:
    seen = Adding([], [], [])
    for seed in seeds:
        model = adder(name)
        result = trials.fit(
            f"adding, {name}, seed {seed}",
            model,
            data.train,
            Adam(Cosine(1e-3, 1)),
            epochs=1,
            batch_size=16,
            shards=4,
            seed=seed,
            clip_norm=1.0,
        )
        seen.errors.append(trials.coordinator.evaluate(model, data.test).loss)
        seen.largest.append(float(result.losses.max()))
        seen.curves.append(curve(result))
    return seen


def read(trials: Trials, name: str, data: Split, shape: tuple[int, int], lr: float, epochs: int, seed: int) -> Reading:
    """Learn images as sequences of this shape: (steps, inputs)."""
    model = nn.Sequential(nn.Reshape(shape), recurrence(name), nn.Dense(10))
    result = trials.fit(
        f"images of {shape[0]} steps, {name}, seed {seed}",
        model,
        data.train,
        Adam(Cosine(lr, epochs)),
        epochs=epochs,
        batch_size=64,
        shards=4,
        seed=seed,
        clip_norm=1.0,
    )
    accuracy = trials.coordinator.evaluate(model, data.test).accuracy
    assert accuracy is not None
    return Reading(100 * accuracy, curve(result))


def curve(result: FitResult) -> list[float]:
    return [float(np.median(part)) for part in np.array_split(result.losses, min(POINTS, len(result.losses)))]


def fall_of(flow: TimeFlow) -> float:
    return flow.norms[0] / flow.norms[-1]


def change_of(flow: TimeFlow) -> float:
    """The factor between the first norm and the last, at least 1; infinite when the first is 0."""
    fall = fall_of(flow)
    return max(fall, 1 / fall) if fall else inf


def claims_about_adding(added: dict[str, Adding]) -> list[Claim]:
    irnn, *others = (seen.errors for seen in added.values())
    return [
        Claim(
            f"The IRNN solves the adding problem: its squared error is below {SOLVED} with each of {len(irnn)} seeds",
            max(irnn) < SOLVED,
            f"{spread(irnn, 4)}",
        ),
        Claim(
            "ReLU that begins as He et al. have it, and tanh, don't: with no seed is their error below nine tenths of "
            "the trivial one, 1/6",
            min(map(min, others)) > 0.9 * TRIVIAL,
            " and ".join(spread(errors, 4) for errors in others),
        ),
    ]


def claim_about_gradients(flows: dict[str, TimeFlow]) -> Claim:
    irnn, *others = map(change_of, flows.values())
    return Claim(
        "Under the identity gradients stay as they are on their way back through time: their norms at the first step "
        f"and at the last differ by a factor of less than {STAYS}, those of the others by more than {CHANGES}",
        irnn < STAYS and min(others) > CHANGES,
        f"{irnn:.1f} beside {' and '.join(f'{factor:.0f}' for factor in others)}",
    )


def claims_about_pixels(pixels: dict[str, Reading]) -> list[Claim]:
    irnn, *others = (seen.accuracy for seen in pixels.values())
    return [
        Claim(
            "The IRNN learns MNIST pixel by pixel where the others, even with ReLU, fail: it makes less than half of "
            "their errors",
            100 - irnn < (100 - max(others)) / 2,
            f"{irnn:.1f} % right beside {' and '.join(f'{other:.1f} %' for other in others)}",
        ),
        Claim(
            f"The IRNN reads {PAPERS_ACCURACY:.0f} % of MNIST right, pixel by pixel",
            irnn >= PAPERS_ACCURACY,
            f"{irnn:.1f} %",
        ),
    ]


def paint(added: dict[str, Adding], flows: dict[str, TimeFlow], pixels: dict[str, Reading], path: Path) -> None:
    def panels(sums: Any, gradients: Any, reading: Any) -> None:
        for number, (name, seen) in enumerate(added.items()):
            for line in seen.curves:
                label = name if line is seen.curves[0] else None
                sums.plot(np.linspace(0, 1, len(line)), line, label=label, **thin(number, line))
        sums.axhline(TRIVIAL, color=GREY, linewidth=1.2, label="always predicting 1: error 1/6")
        sums.set(title=f"adding problem, seeds of each: {len(seen.curves)}", ylabel="squared error", yscale="log")
        sums.set(xlabel="part of the training", ylim=(1e-4, 2))
        paint_recurrence(gradients, flows)
        for number, learned in enumerate(pixels.values()):
            reading.plot(np.linspace(0, 1, len(learned.curve)), learned.curve, **thin(number, learned.curve))
        reading.set(title="MNIST, pixel by pixel", xlabel="part of the training", ylabel="cross-entropy", ylim=(0, 2.6))

        legend_below(sums)

    draw(3, panels, path)


def thin(number: int, line: Sequence[float]) -> dict[str, Any]:
    """The look of a line that has many points, and others beside it."""
    return {**look(number), "linewidth": 1.0, "markersize": 3.5, "markevery": max(len(line) // 8, 1)}


if __name__ == "__main__":
    paper("le2015", reproduce, __doc__)
