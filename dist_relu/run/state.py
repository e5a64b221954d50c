"""The state of a run after some step: what it takes to go on from there, to the bit.

P parameters.  V vectors: the parameters, the optimiser's states, the gradient of the step before where gradients are
stale, and the average of the parameters if there is one.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, final

import numpy as np

from dist_relu.core import machine
from dist_relu.core.arrays import Array
from dist_relu.core.html import curve, table
from dist_relu.errors import CheckpointError, TrainingWarning
from dist_relu.nn.sequential import digest_of
from dist_relu.run.settings import Settings, differences, digest_of_settings


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class RunState:
    """All that a run is after `step` steps.  States are equal (`==`) when they go on to the same bits.

    vectors: (V, P).  names, shapes: of the parameters.  vector_names: (V,).
    records: (steps,), with the mean loss of each step's samples ("loss"), how many of them were predicted right before
    the step ("num_correct"), how many there were ("num_samples") and how long it took ("seconds").
    settings: what fixes the bits.  versions: of the programs that computed; they fix them too, but are compared by
    nobody but the reader.  lr_scale: see `Trainer.lr_scale`.
    validations: of the run so far, see `Validated`.  callbacks: what they remember, by place and class.
    """

    step: int
    steps_per_epoch: int
    vectors: Array
    vector_names: Sequence[str]
    names: Sequence[str]
    shapes: Sequence[tuple[int, ...]]
    records: Array
    settings: Settings
    versions: Mapping[str, str]
    lr_scale: float = 1.0
    validations: Sequence[Mapping[str, Any]] = ()
    callbacks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """How many epochs are complete."""
        return self.step // self.steps_per_epoch

    @property
    def losses(self) -> Array:
        """The mean loss of each step's samples, (steps,)."""
        losses: Array = self.records["loss"]
        return losses

    @property
    def seed(self) -> int:
        seed: int = self.settings["seed"]
        return seed

    @property
    def shards(self) -> int:
        shards: int = self.settings["shards"]
        return shards

    @property
    def digest(self) -> str:
        """The SHA-256 of all that fixes the bits: model, data, optimiser, options and versions."""
        return digest_of_settings(self.settings, self.versions)

    @property
    def params_sha256(self) -> str:
        """The digest of the parameters, as `Sequential.sha256` gives it."""
        return digest_of(self.vectors[0])

    def __eq__(self, other: object) -> bool:
        return self.first_difference(other) is None if isinstance(other, RunState) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def first_difference(self, other: RunState) -> str | None:
        """Say in words where two states differ first: a setting, the step, a step's loss, a vector; None if nowhere.

        A vector is named with parameter, element and both values.
        """
        for name, mine, others in differences(self.settings, other.settings):
            return f"{name}: {mine!r} and {others!r}"
        for name in ("step", "lr_scale"):
            mine, others = getattr(self, name), getattr(other, name)
            if mine != others:
                return f"{name}: {mine} and {others}"
        for name in ("loss", "num_correct", "num_samples"):
            found = _first_unequal(self.records[name], other.records[name])
            if found is not None:
                return f"{name} of step {found}: {self.records[name][found]!r} and {other.records[name][found]!r}"
        for number, vector_name in enumerate(self.vector_names):
            found = _first_unequal(self.vectors[number], other.vectors[number])
            if found is not None:
                values = f"{self.vectors[number, found]!r} and {other.vectors[number, found]!r}"
                return f"{vector_name} of {self._element(found)}: {values}"
        return None

    def _element(self, place: int) -> str:
        """Name an element of a vector (P,): its parameter, and where in it."""
        for name, shape in zip(self.names, self.shapes, strict=True):
            if place < prod(shape):
                return f"{name}[{', '.join(str(int(i)) for i in np.unravel_index(place, shape))}]"
            place -= prod(shape)
        raise AssertionError

    def _repr_html_(self) -> str:
        """Where the run stands, and what fixes its bits, for notebooks."""
        plain = ((name, value) for name, value in self.settings.items() if not isinstance(value, Mapping))
        return table(
            f"Run after step {self.step:,}, {self.epoch:,} epochs",
            ["setting", ""],
            [*plain, ("parameters (SHA-256)", self.params_sha256[:16])],
            curve("Loss", self.losses),
        )

    def __repr__(self) -> str:
        return f"RunState(step: {self.step}, epoch: {self.epoch}, parameters: {self.params_sha256[:16]})"


def check_goes_on(state: RunState, settings: Settings) -> None:
    """Raise CheckpointError when a run with these settings is not the one that `state` is of.

    Warns with TrainingWarning of other versions, which may give other bits.
    """
    for name, there, here in differences(state.settings, settings):
        raise CheckpointError(
            f"This run can't go on from that state, which would be another one then: {name} was {there!r} and is "
            f"{here!r}. Pass the same."
        )
    ours = machine.versions()
    others = [
        f"{name} {there} (here {ours.get(name)})" for name, there in state.versions.items() if ours.get(name) != there
    ]
    if others:
        warnings.warn(
            f"The state was made with {', '.join(others)}; going on from it may give other bits.",
            TrainingWarning,
            stacklevel=5,
        )


def _first_unequal(one: Array, other: Array) -> int | None:
    """Find the first element whose bits differ; arrays of one length."""
    bits = np.dtype(f"u{one.itemsize}")
    unequal = np.ascontiguousarray(one).view(bits) != np.ascontiguousarray(other).view(bits)
    return int(np.argmax(unequal)) if unequal.any() else None
