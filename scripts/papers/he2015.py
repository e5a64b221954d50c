"""He et al. 2015: initial weights with which very deep rectifier networks learn, and rectifiers that learn their slope.

"Delving deep into rectifiers: surpassing human-level performance on ImageNet classification", ICCV 2015. Networks of 22
and of 30 layers (figures 2 and 3) are trained from weights of variance 2/n, where n is the number of a unit's inputs
(equation 10), and from Glorot's, whose variance is half of that. With 14 layers (table 2) ReLU is compared with PReLU,
whose slope below 0 is learned: one for each layer, or one for each unit. Three seeds each.

Scaled down: MNIST instead of ImageNet, so errors are not comparable with the paper's, and dense layers of 128 units
instead of convolutions, whose channels are our units. 3 passes over MNIST with 22 and 30 layers, 8 with 14, in batches
of 128, at a constant learning rate with momentum, without dropout or weight decay.
Every batch is cut into 4 shards, so the numbers are the same on any backend with 1 to 4 workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from common import Claim, Findings, Trials, error, images, of_seeds, paper, spread

from dist_relu import nn
from dist_relu.analysis import gradient_flow
from dist_relu.data import Dataset, Split
from dist_relu.optim import SGD
from dist_relu.reports.plots.style import draw, draw_course, legend_below, look, smoothing_note

NUM_SEEDS = 3
UNITS = 128
LR = 0.003

DEPTHS = 22, 30
INITS: dict[str, nn.Initializer] = {"He": nn.HeNormal(), "Glorot": nn.GlorotNormal()}
PAPERS_COURSE = ["converges", "converges", "converges", "stalls"]
"""Of 22 layers with both, and of 30: figures 2 and 3."""

RECTIFIERS: dict[str, Callable[[], nn.Layer]] = {
    "ReLU": nn.ReLU,
    "PReLU, a slope a layer": nn.PReLU,
    "PReLU, a slope a unit": lambda: nn.PReLU(UNITS),
}
RECTIFIER_INITS = [nn.HeNormal(), *2 * [nn.HeNormal(nn.gain("leaky_relu", nn.PReLU().init))]]
"""Equations 10 and 15."""
PAPERS_ERROR = ["33.82", "32.71", "32.64"]
"""Top-1 on ImageNet, in %: table 2."""

LEARNED, STALLED = 20, 80
"""Test errors in % of a network that has learned, at most, and of one that stalls, at least; chance is 90."""
DIMINISHED = 1000
"""How many times smaller than the other a gradient is that has diminished."""


@dataclass(frozen=True)
class Runs:
    """By seed: the mean loss of every step, the test error in %, and PReLU's slopes, meaned over each layer."""

    losses: list[list[float]] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    slopes: list[list[float]] = field(default_factory=list)


def reproduce(trials: Trials, quick: bool, seed: int) -> Findings:
    data, seeds = images(quick), range(seed, seed + (1 if quick else NUM_SEEDS))
    trials.expect((len(DEPTHS) * len(INITS) + len(RECTIFIERS)) * len(seeds))
    deep, norms, rectified = {}, {}, {}
    for depth, (name, init) in product(DEPTHS, INITS.items()):
        build = partial(network, depth, "ReLU", init)
        norms[f"{depth} layers, {name}"] = gradient_norms(trials, build(), data.test, seed)
        deep[f"{depth} layers, {name}"] = learn(
            trials, f"{depth} layers, {name}", build, data, seeds, epochs=1 if quick else 3
        )
    for name, init in zip(RECTIFIERS, RECTIFIER_INITS, strict=True):
        build = partial(network, 14, name, init)
        rectified[f"14 layers, {name}"] = learn(
            trials, f"14 layers, {name}", build, data, seeds, epochs=1 if quick else 8
        )
    ours = deep | rectified
    papers = PAPERS_COURSE + PAPERS_ERROR
    return Findings(
        columns=("", "test error, %", "paper: course, or top-1 error on ImageNet, %"),
        rows=[[name, spread(runs.errors), there] for (name, runs), there in zip(ours.items(), papers, strict=True)],
        claims=[*claims_about_depth(deep, norms), *claims_about_slopes(*rectified.values())],
        draw=lambda path: paint(deep, norms, rectified, path),
        numbers={"runs": {name: asdict(runs) for name, runs in ours.items()}, "gradient_norms": norms},
    )


def network(depth: int, rectifier: str, init: nn.Initializer) -> nn.Sequential:
    layers: list[nn.Layer] = []
    for _ in range(depth - 1):
        layers += [nn.Dense(UNITS, init=init), RECTIFIERS[rectifier]()]
    return nn.Sequential(*layers, nn.Dense(10, init=init))


def gradient_norms(trials: Trials, model: nn.Sequential, data: Dataset, seed: int) -> list[float]:
    """Of every layer's weights, from the input on, before training."""
    model.build(data.x.shape[1:]).initialize(seed)
    flow = gradient_flow(trials.coordinator, model, data)
    return [magnitude.norm for name, magnitude in flow.weights.items() if name.endswith(".weight")]


def learn(
    trials: Trials, name: str, build: Callable[[], nn.Sequential], data: Split, seeds: Sequence[int], epochs: int
) -> Runs:
    runs = Runs()
    for seed in seeds:
        model = build()
        optimizer = SGD(LR, momentum=0.9)
        result = trials.fit(
            f"{name}, seed {seed}", model, data.train, optimizer, epochs=epochs, batch_size=128, shards=4, seed=seed
        )
        runs.losses.append(result.losses.tolist())
        runs.errors.append(error(trials.coordinator.evaluate(model, data.test)))
        runs.slopes.append([float(layer.weight.value.mean()) for layer in model.layers if isinstance(layer, nn.PReLU)])
    return runs


def claims_about_depth(deep: dict[str, Runs], norms: dict[str, list[float]]) -> list[Claim]:
    fewer, more = DEPTHS
    shrinks = norms[f"{more} layers, He"][0] / norms[f"{more} layers, Glorot"][0]
    stalled = deep[f"{more} layers, Glorot"].errors
    both = [runs.errors for name, runs in deep.items() if name.startswith(f"{fewer} ")]
    learned = deep[f"{more} layers, He"].errors
    return [
        Claim(
            f"{fewer} layers learn with either initialisation: test error below {LEARNED} % with every seed",
            max(map(max, both)) < LEARNED,
            "He {} %, Glorot {} %".format(*map(spread, both)),
        ),
        Claim(
            f"{more} layers learn with He's initialisation: test error below {LEARNED} % with every seed",
            max(learned) < LEARNED,
            f"{spread(learned)} %",
        ),
        Claim(
            f"{more} layers stall with Glorot's: test error above {STALLED} % with every seed",
            min(stalled) > STALLED,
            f"{spread(stalled)} %",
        ),
        Claim(
            "There gradients diminish: before training, that of the first layer's weights has less than "
            f"1/{DIMINISHED} of the norm that it has with He's",
            shrinks > DIMINISHED,
            f"1/{shrinks:.0f}",
        ),
    ]


def claims_about_slopes(relu: Runs, shared: Runs, by_unit: Runs) -> list[Claim]:
    first = [slopes[0] for slopes in by_unit.slopes]
    others = [fmean(slopes[1:]) for slopes in by_unit.slopes]
    return [
        *(
            Claim(
                f"PReLU with a slope for each {what} has a lower test error than ReLU, {of_seeds(relu.errors)}",
                fmean(runs.errors) < fmean(relu.errors),
                f"{spread(runs.errors)} % beside {spread(relu.errors)} %",
            )
            for what, runs in (("layer", shared), ("unit", by_unit))
        ),
        Claim(
            "The first layer learns larger slopes than the others, whose mean is lower with every seed",
            all(one > other for one, other in zip(first, others, strict=True)),
            f"{spread(first, digits=3)} beside {spread(others, digits=3)}",
        ),
    ]


def paint(deep: dict[str, Runs], norms: dict[str, list[float]], rectified: dict[str, Runs], path: Path) -> None:
    def panels(fewer: Any, more: Any, gradients: Any, slopes: Any) -> None:
        for axes, depth in zip((fewer, more), DEPTHS, strict=True):
            for number, init in enumerate(INITS):
                name = f"{depth} layers, {init}"
                mean = np.mean(deep[name].losses, axis=0)
                draw_course(axes, number, range(len(mean)), mean, init)
            axes.set(title=f"{depth} layers", xlabel="step", ylim=(0, 2.5))
        fewer.set_ylabel("loss, mean of seeds" if len(deep[name].losses) > 1 else "loss")
        for number, init in enumerate(INITS):
            line = norms[f"{DEPTHS[-1]} layers, {init}"]
            gradients.plot(range(1, len(line) + 1), line, label=init, **look(number))
        gradients.set(title=f"{DEPTHS[-1]} layers, before training", xlabel="layer", ylabel="norm of weights' gradient")
        gradients.set_yscale("log")
        for number, (name, runs) in enumerate(rectified.items()):
            if name.endswith(("layer", "unit")):
                line = np.mean(runs.slopes, axis=0)
                slopes.plot(range(1, len(line) + 1), line, label=f"PReLU, {name.split(', ')[-1]}", **look(number + 1))
        slopes.set(title="what PReLU learned, 14 layers", xlabel="layer", ylabel="slope below 0")
        legend_below(fewer, slopes)

    num_steps = max(len(losses) for runs in deep.values() for losses in runs.losses)
    draw(2, panels, path, rows=2, note=smoothing_note(num_steps, "step"))


if __name__ == "__main__":
    paper("he2015", reproduce, __doc__)
