"""Glorot, Bordes and Bengio 2011: rectifiers learn well, and most of what they say is zero.

"Deep sparse rectifier neural networks", AISTATS 2011. Networks of three hidden layers with ReLU, tanh and softplus
learn MNIST from three seeds each, without unsupervised pre-training: table 1. Those with ReLU have an L1 penalty of
0.001 on activations, as the paper's have. Other penalties, and none, show how much of the sparsity comes from it, and
how many zeros a network can bear: figure 3. All shares of zeros are those of the test images.

Scaled down: layers of 500 units instead of 1000, batches of 120 instead of 10, and 8 passes over MNIST at a learning
rate that falls along a cosine, instead of 50 with early stopping. It begins, for each activation, at the best of 0.03,
0.1, 0.3 and 1 for another seed after 2 passes. So few passes end before tanh and softplus have learned what they can,
and their test errors say how fast they learn as much as how well: see their errors on what they were trained with.
Penalties other than 0 and 0.001 have one seed.
Every batch is cut into 4 shards, so the numbers are the same on any backend with 1 to 4 workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from statistics import fmean
from typing import Any

from common import Claim, Findings, Trials, error, images, of_seeds, paper, spread

from dist_relu import nn
from dist_relu.analysis import activation_statistics
from dist_relu.data import Split
from dist_relu.optim import SGD, Cosine
from dist_relu.reports.plots.style import GREY, draw, legend_under, look

NUM_SEEDS = 3
DEPTH = 3
LR = {"ReLU": 0.3, "tanh": 0.3, "softplus": 1.0}
PENALTY = 0.001
OTHER_PENALTIES = 0.0003, 0.003, 0.01

PAPERS_ZEROS = 83.4
PAPERS_ERRORS = {"ReLU": 1.43, "tanh": 1.57, "softplus": 1.77}
"""On MNIST, in %: section 4.1, and table 1 without pre-training."""

PAPERS_RELU = {PENALTY: (PAPERS_ERRORS["ReLU"], PAPERS_ZEROS)}

ACTIVATIONS: dict[str, Callable[[], nn.Layer]] = {"ReLU": nn.ReLU, "tanh": nn.Tanh, "softplus": nn.Softplus}

BEARABLE_ZEROS, BEARABLE_ERROR = 85, 0.2
"""Up to that share of zeros in %, the error may grow by so many points and still count as the same."""
MANY_ZEROS = 75
"""That share of zeros in % must have been tried, at least, to speak of those that are bearable."""


@dataclass(frozen=True)
class Runs:
    """By seed: errors after training, and the share of zeros in every hidden layer, before it and after it; in %."""

    errors: list[float] = field(default_factory=list)
    train_errors: list[float] = field(default_factory=list)
    before: list[list[float]] = field(default_factory=list)
    after: list[list[float]] = field(default_factory=list)

    @property
    def zeros(self) -> list[float]:
        return list(map(fmean, self.after))


def reproduce(trials: Trials, quick: bool, seed: int) -> Findings:
    data = images(quick)
    units, epochs = (50, 1) if quick else (500, 8)
    seeds = range(seed, seed + (1 if quick else NUM_SEEDS))
    trials.expect(4 * len(seeds) + len(OTHER_PENALTIES))

    def run(activation: str, l1: float, seeds: Sequence[int]) -> Runs:
        name = f"{activation}, penalty {l1:g}"
        return learn(trials, name, data, lambda: network(units, activation, l1), LR[activation], seeds, epochs)

    penalised = {l1: run("ReLU", l1, seeds) for l1 in (0.0, PENALTY)}
    penalised |= {l1: run("ReLU", l1, seeds[:1]) for l1 in OTHER_PENALTIES}
    by_activation = {"ReLU": penalised[PENALTY]} | {name: run(name, 0.0, seeds) for name in ("tanh", "softplus")}
    return Findings(
        columns=("", "test error, %", "paper", "training error, %", "zeros, %", "paper", "by layer, %"),
        rows=[
            *(row(f"ReLU, penalty {l1:g}", runs, *PAPERS_RELU.get(l1, ())) for l1, runs in sorted(penalised.items())),
            *(row(name, by_activation[name], PAPERS_ERRORS[name]) for name in ("tanh", "softplus")),
        ],
        claims=[*claims_about_zeros(penalised), *claims_about_errors(by_activation)],
        draw=lambda path: paint(penalised, by_activation, path),
        numbers={
            "penalised": {l1: asdict(runs) for l1, runs in penalised.items()},
            "by_activation": {name: asdict(runs) for name, runs in by_activation.items()},
        },
    )


def network(units: int, activation: str, l1: float) -> nn.Sequential:
    layers: list[nn.Layer] = []
    for _ in range(DEPTH):
        layers += [nn.Dense(units, init=nn.GlorotUniform()), ACTIVATIONS[activation](), nn.ActivityPenalty(l1)]
    return nn.Sequential(*layers, nn.Dense(10, init=nn.GlorotUniform()))


def learn(
    trials: Trials,
    name: str,
    data: Split,
    build: Callable[[], nn.Sequential],
    lr: float,
    seeds: Sequence[int],
    epochs: int,
) -> Runs:
    runs = Runs()
    for seed in seeds:
        model = build().build(data.train.x.shape[1:]).initialize(seed)
        runs.before.append(zeros_by_layer(trials, model, data))
        optimizer = SGD(Cosine(lr, epochs))
        trials.fit(
            f"{name}, seed {seed}", model, data.train, optimizer, epochs=epochs, batch_size=120, shards=4, seed=seed
        )
        runs.after.append(zeros_by_layer(trials, model, data))
        runs.errors.append(error(trials.coordinator.evaluate(model, data.test)))
        runs.train_errors.append(error(trials.coordinator.evaluate(model, data.train)))
    return runs


def zeros_by_layer(trials: Trials, model: nn.Sequential, data: Split) -> list[float]:
    """In % of the activations of each hidden layer."""
    layers = activation_statistics(trials.coordinator, model, data.test.x)
    return [100 * layer.sparsity for layer in layers if layer.name.endswith("ActivityPenalty")]


def row(name: str, runs: Runs, papers_error: float | None = None, papers_zeros: float | None = None) -> list[str]:
    papers = ["" if number is None else str(number) for number in (papers_error, papers_zeros)]
    by_layer = ", ".join(f"{fmean(shares):.1f}" for shares in zip(*runs.after, strict=True))
    train_error, zeros = f"{fmean(runs.train_errors):.2f}", f"{fmean(runs.zeros):.1f}"
    return [name, spread(runs.errors), papers[0], train_error, zeros, papers[1], by_layer]


def claims_about_zeros(penalised: dict[float, Runs]) -> list[Claim]:
    before = [share for shares in penalised[0.0].before for share in shares]
    zeros = penalised[PENALTY].zeros
    plain = fmean(penalised[0.0].errors)
    bearable = {l1: runs for l1, runs in penalised.items() if l1 and fmean(runs.zeros) <= BEARABLE_ZEROS}
    worst = max((fmean(runs.errors) for runs in bearable.values()), default=inf)
    most = max((fmean(runs.zeros) for runs in bearable.values()), default=0.0)
    return [
        Claim(
            "Before training about half of all activations of rectifiers are zero: 45 to 55 % in every layer",
            min(before) >= 45 and max(before) <= 55,
            f"{spread(before, digits=1)} %",
        ),
        Claim(
            f"With the penalty most are zero after training: within 10 points of the paper's {PAPERS_ZEROS} %",
            abs(fmean(zeros) - PAPERS_ZEROS) < 10,
            f"{spread(zeros, digits=1)} %; {spread(penalised[0.0].zeros, digits=1)} % without the penalty",
        ),
        Claim(
            f"Up to {BEARABLE_ZEROS} % of zeros do no harm: penalties that lead to no more than that, and one of them "
            f"to {MANY_ZEROS} % or more, raise the test error by at most {BEARABLE_ERROR} points",
            most >= MANY_ZEROS and worst <= plain + BEARABLE_ERROR,
            f"at most {worst:.2f} %, with {len(bearable)} penalties and up to {most:.1f} % of zeros, beside "
            f"{plain:.2f} %",
        ),
    ]


def claims_about_errors(by_activation: dict[str, Runs]) -> list[Claim]:
    relu = by_activation["ReLU"].errors
    return [
        Claim(
            f"Rectifiers have a lower test error than {name}, {of_seeds(relu)}",
            fmean(relu) < fmean(runs.errors),
            f"{spread(relu)} % beside {spread(runs.errors)} %",
        )
        for name, runs in by_activation.items()
        if name != "ReLU"
    ]


def paint(penalised: dict[float, Runs], by_activation: dict[str, Runs], path: Path) -> None:
    def panels(zeros: Any, errors: Any, bearable: Any) -> None:
        layers = range(1, DEPTH + 1)
        plain, sparse = penalised[0.0], penalised[PENALTY]
        for number, (name, shares) in enumerate(
            (
                (f"trained, penalty {PENALTY:g}", sparse.after),
                ("trained, no penalty", plain.after),
                ("before training", plain.before),
            )
        ):
            zeros.plot(layers, list(map(fmean, zip(*shares, strict=True))), label=name, **look(number))
        zeros.axhline(PAPERS_ZEROS, color=GREY, linestyle="--")
        zeros.annotate(f"paper: {PAPERS_ZEROS} %", (layers[-1], PAPERS_ZEROS + 3), ha="right", color=GREY)
        zeros.set(title="zeros by layer", xlabel="hidden layer", ylabel="share of activations in %", ylim=(0, 100))
        zeros.set_xticks(layers)
        legend_under(zeros)
        for number, (name, runs) in enumerate(by_activation.items()):
            points = {**look(number), "linestyle": ""}
            errors.plot([number] * len(runs.errors), runs.errors, **points)
            errors.plot(number + 0.2, PAPERS_ERRORS[name], **{**points, "markerfacecolor": "none"})
        errors.set(title="test error by seed (hollow: paper)", ylabel="error in %", xlim=(-0.5, 2.5))
        errors.set_xticks(range(len(by_activation)), list(by_activation))
        for number, (l1, runs) in enumerate(sorted(penalised.items())):
            bearable.plot(runs.zeros, runs.errors, label=f"penalty {l1:g}", **{**look(number), "linestyle": ""})
        bearable.set(title="ReLU with several penalties", xlabel="zeros in %", ylabel="test error in %", ylim=(0, None))
        legend_under(bearable)

    draw(3, panels, path, panel_inches=(4.0, 4.2))


if __name__ == "__main__":
    paper("glorot2011", reproduce, __doc__)
