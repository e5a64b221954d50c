"""The trainings that are disturbed, and all that such a training comes to, as one number."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import dist_relu as dr
from dist_relu.run.checkpoints import Checkpoint, newest_state


@dataclass(frozen=True)
class Training:
    """AdamW with clipping on the digits, with a validation after every epoch, and checkpoints.

    epochs: for about a second of two workers.
    """

    name: str
    model: Callable[[], dr.nn.Sequential]
    epochs: int

    def run(self, coordinator: dr.Coordinator, callbacks: Sequence[Any] = ()) -> str:
        """Train; returns the digest of parameters, losses, optimiser, epochs and validations."""
        data = dr.data.load("digits")
        model = self.model()
        with tempfile.TemporaryDirectory() as folder:
            result = coordinator.fit(
                model,
                data.train,
                dr.optim.AdamW(1e-3),
                epochs=self.epochs,
                batch_size=64,
                shards=4,
                seed=3,
                clip_norm=1.0,
                validation=data.test,
                callbacks=[Checkpoint(folder, every="1epoch"), *callbacks],
            )
            state = newest_state(folder)
        assert state
        digest = hashlib.sha256()
        for array in (model.values, result.losses, state.vectors, state.records["loss"]):
            digest.update(array.tobytes())
        digest.update(repr([epoch.epoch for epoch in result.epochs]).encode())
        digest.update(repr([(one.step, one.loss, one.accuracy) for one in result.validations]).encode())
        return digest.hexdigest()


@cache
def undisturbed(training: Training) -> str:
    """The digest of a training in one process, which nobody disturbs."""
    with dr.start(1, backend="serial") as coordinator:
        return training.run(coordinator)


MLP = Training("mlp", lambda: dr.nn.mlp([256, 128], 10), epochs=20)
CNN = Training("cnn", lambda: dr.nn.cnn((8, 8, 1), 10), epochs=5)
RNN = Training("rnn", lambda: dr.nn.rnn(32, 10, (8, 8)), epochs=12)
