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
    Training("cnn", 4, 2, None, "f5460adc86a2c354c627e28835c2291a78857870a48e498878b27d6980531587"),
    Training("resnet:8", 4, 2, None, "ada4e86dc558daa52833832e22763510da93639445414740ae9e9307a16af4a9"),
    Training("rnn:32", 4, 2, None, "e817fa1ed7b0e474d9c5c3e897c60f548e596363ae4201f6436144f63b895a08"),
    Training("mlp:300,40", 7, 1, 1.0, "41748ce50c53eca2836feb4045626fafb01c995dd2b80c166306a1cc3fbcdb98"),
    Training("mlp:1024,256", 4, 1, 1.0, "2f898b867af9d506c4a2361d3bf36f1970092ae0795f5253ee8962956831eaa4"),
    Training("cnn", 7, 1, 1.0, "89b111cff5f2b7673a4a01f0de1e0e2a2a35c350afc084bdaf7771bff2d4cc0c"),
    Training("resnet:8", 8, 1, 1.0, "986335612f0edc3474634ac46d49fca6008443571fa7f37e7fc34913f3ad73c9"),
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
