"""Training for a moment: the only proof that it works.  `python -m dist_relu.doctor.trial` prints two digests.

It runs in a process of its own, since what is wrong may end it: a kernel of a BLAS that the processor can't run, for
instance.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from dist_relu.doctor.finding import Finding, State
from dist_relu.doctor.programs import Outcome, run_module

_TIMEOUT_S = 300.0
"""Long enough to compile all kernels on a slow machine."""


def check_training(outcome: Outcome) -> Finding:
    """Check whether serial and local training work, and end with the same bits.  outcome: of `train`."""
    digests = outcome.output.split()
    if outcome.code != 0 or len(digests) != 2:
        found = f"Training on this machine failed: {outcome.complaint}."
        return Finding("training", State.FAILURE, found, "See the other findings; if they are fine, report this one.")
    if digests[0] != digests[1]:
        found = "Two local workers ended with other bits than one serial worker did."
        advice = "Report it, with the processor's name and `pip list`: this must never happen."
        return Finding("training", State.FAILURE, found, advice, {"serial": digests[0], "local": digests[1]})
    found = f"Two local workers ended with the bits of the serial run ({digests[0][:8]}...)."
    return Finding("training", State.OK, found, "", {"params_sha256": digests[0]})


def train(environment: Mapping[str, str]) -> Outcome:
    """Train a small network, serially and on two local workers, in another process."""
    return run_module("dist_relu.doctor.trial", _TIMEOUT_S, environment)


def main() -> None:
    import numpy as np

    from dist_relu import nn, optim
    from dist_relu.coordinator import start
    from dist_relu.data import Dataset

    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, 64), dtype=np.float32)
    data = Dataset(x, (x[:, :4].argmax(axis=1)).astype(np.int64))
    for backend, workers in (("serial", 1), ("local", 2)):
        model = nn.Sequential(nn.Dense(256), nn.ReLU(), nn.Dense(4))
        with start(workers, backend=backend) as coordinator:
            coordinator.fit(model, data, optim.SGD(lr=0.1, momentum=0.9), epochs=1, batch_size=64, shards=2)
        sys.stdout.write(f"{model.sha256()}\n")


if __name__ == "__main__":
    main()
