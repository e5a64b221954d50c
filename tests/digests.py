"""What whole trainings have always ended with, as data: `Sequential.sha256()` of models on the digits, with seed 1.

They were made before the package took its present form, by `dist-relu train --backend serial --seed 1`.  They hold for
the versions in constraints.txt: another NumPy may draw other numbers, another Numba may compile other instructions.

`python -m tests.digests NAME ...` trains some of them, and prints what they end with, and with what they should: for
processors on which pytest is not there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

import dist_relu as dr
from dist_relu import nn, optim, rl

MODELS: dict[str, Callable[[], nn.Sequential]] = {
    "mlp:64": lambda: nn.mlp((64,), 10),
    "mlp:300,40": lambda: nn.mlp((300, 40), 10),
    "mlp:256,128": lambda: nn.mlp((256, 128), 10),
    "mlp:1024,256": lambda: nn.mlp((1024, 256), 10),
    "cnn": lambda: nn.cnn((8, 8, 1), 10),
    "resnet:8": lambda: nn.resnet(8, (8, 8, 1), 10),
    "rnn:32": lambda: nn.rnn(32, 10, (8, 8)),
}
"""By the names that the command line has for them."""


@dataclass(frozen=True)
class Training:
    """A training, and the digest of the parameters that it ends with."""

    model: str
    shards: int
    epochs: int
    clip_norm: float | None
    digest: str

    def __str__(self) -> str:
        return f"{self.model}-{self.shards}" + ("-clipped" if self.clip_norm else "")

    def options(self) -> list[str]:
        """Those of `dist-relu train`."""
        options = ["--model", self.model, "--shards", str(self.shards), "--epochs", str(self.epochs), "--seed", "1"]
        return options + (["--clip-norm", str(self.clip_norm)] if self.clip_norm else [])

    def digest_on(self, coordinator: dr.Coordinator, data: dr.Dataset) -> str:
        """What the training ends with on these workers."""
        model = MODELS[self.model]()
        rule = optim.SGD(optim.Cosine(0.1, self.epochs), momentum=0.9)
        coordinator.fit(
            model, data, rule, epochs=self.epochs, batch_size=64, shards=self.shards, seed=1, clip_norm=self.clip_norm
        )
        return model.sha256()


TRAININGS = [
    Training("mlp:64", 4, 2, None, "5166a1ccb44807cbe2a2f70bf2480feec07d5fc1eaf16737377e752365fc22dc"),
    Training("mlp:300,40", 4, 2, None, "7d7c4583e27301923f76a4bdb122983ffda1253719b56dbf5892b4446e533a2a"),
    Training("mlp:256,128", 4, 3, None, "a9fe0c444c5ea2ababdd5171f5e08472ca83e78aea9179c6a202d1a3ec688227"),
    Training("mlp:1024,256", 4, 2, None, "e4be0d9ca1b47e31ad700d0824d5348cdc9c3c87ba5983eb994f917ef0d4b50b"),
    Training("cnn", 4, 2, None, "245156510d7db0e3011992bf24ec7016c30299bf08403886cd3317b0e12bf40d"),
    Training("resnet:8", 4, 2, None, "4f97893daacaafe43578308cf8708c85253da457c78173779bf3f502d3e3139c"),
    Training("rnn:32", 4, 2, None, "e817fa1ed7b0e474d9c5c3e897c60f548e596363ae4201f6436144f63b895a08"),
    Training("mlp:300,40", 7, 1, 1.0, "41748ce50c53eca2836feb4045626fafb01c995dd2b80c166306a1cc3fbcdb98"),
    Training("mlp:1024,256", 4, 1, 1.0, "2f898b867af9d506c4a2361d3bf36f1970092ae0795f5253ee8962956831eaa4"),
    Training("cnn", 7, 1, 1.0, "05fe283a10e9b59220dd0182ef640cc49c4080e763fc40a12d9e6fde37884976"),
    Training("resnet:8", 8, 1, 1.0, "adc6d89fecf54ae40eae462822a580dbbf2b7e6d5b4f6e50e9bb63da0ec599d7"),
]


@dataclass(frozen=True)
class Learning:
    """A policy that learns to balance a pole, and the digest of the parameters that it ends with."""

    digest: str

    def __str__(self) -> str:
        return "policy"

    def digest_on(self, coordinator: dr.Coordinator, data: dr.Dataset | None = None) -> str:
        """What it ends with on these workers; it makes its data itself."""
        algorithm = rl.PPO(horizon=32, epochs=2, minibatches=2)
        return rl.train(coordinator, "CartPole-v1", algorithm, steps=1024, num_envs=8, shards=2, seed=1).digest


LEARNING = Learning("2465e93f190dd0c53aef7105b0928bb600a6d92e17fc7d13f6b6c445d55ffcfd")


def main() -> int:
    everything: list[Training | Learning] = [*TRAININGS, LEARNING]
    trainings = {str(training): training for training in everything}
    parser = argparse.ArgumentParser(prog="python -m tests.digests", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(trainings), metavar="NAME", help=f"of {', '.join(trainings)}")
    parser.add_argument("--workers", type=int, help="so many local ones; by default all is done in one process")
    options = parser.parse_args()
    data, is_good = dr.data.load("digits").train, True
    kind = "serial" if options.workers is None else "local"
    with dr.start(backend=kind, workers=options.workers) as coordinator:
        for name in options.names:
            digest = trainings[name].digest_on(coordinator, data)
            print(f"{name}: {digest[:16]}, expected {trainings[name].digest[:16]}", flush=True)
            is_good &= digest == trainings[name].digest
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
