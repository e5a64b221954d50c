"""What layers and models know of themselves: what they were built for, where they stand, which pass they saw last."""

from __future__ import annotations

import itertools
import weakref
from typing import Any, final

import numpy as np

Shape = tuple[int, ...]

ATTRIBUTE = "_dist_relu_state"
"""Where a layer has its state."""

_stamps = itertools.count(1)


@final
class State:
    """What a layer or a model was built for, and the last pass that began with it.

    shapes: of the input and the output of a sample, for each class whose `build` was called.  place: in its model.
    rows, dtype: of the last pass, whose backward may follow; `rows` is None when none may.  stamp: when it began.
    singly: it was a model's `activations`, after which the layers may go backward one by one.
    is_building: its `build` is at work.  is_implied: it was not built but for the samples of that pass.
    owners: of the models and layers that this layer is a part of.
    """

    __slots__ = (
        "__weakref__",
        "dtype",
        "is_building",
        "is_implied",
        "is_model",
        "owners",
        "place",
        "rows",
        "shapes",
        "singly",
        "stamp",
    )

    def __init__(self, *, is_model: bool = False) -> None:
        self.is_model = is_model
        self.is_building = False
        self.is_implied = False
        self.shapes: dict[type, tuple[Shape, Shape]] = {}
        self.place = ""
        self.rows: int | None = None
        self.dtype: np.dtype[Any] = np.dtype(np.float32)
        self.stamp = 0
        self.singly = False
        self.owners: list[Owner] = []

    def __getstate__(self) -> tuple[bool, dict[type, tuple[Shape, Shape]], str]:
        """A copy has seen no pass, and is a part of nothing."""
        return self.is_model, {} if self.is_implied else self.shapes, self.place

    def __setstate__(self, state: tuple[bool, dict[type, tuple[Shape, Shape]], str]) -> None:
        State.__init__(self)
        self.is_model, self.shapes, self.place = state

    def begin(self) -> None:
        """A pass begins: until it is through, none may go backward."""
        self.rows = None
        self.stamp = next(_stamps)

    def living_owners(self) -> list[tuple[State, bool]]:
        """The owners that are still there, and whether this layer stands in them directly."""
        owners = ((owner.state(), owner.is_direct) for owner in self.owners)
        return [(state, is_direct) for state, is_direct in owners if state is not None]


@final
class Owner:
    """What a layer is a part of, as long as that is there; a copy of the layer is a part of nothing."""

    def __init__(self, state: State | None = None, *, is_direct: bool = False) -> None:
        self._state = None if state is None else weakref.ref(state)
        self.is_direct = is_direct

    def state(self) -> State | None:
        return None if self._state is None else self._state()

    def __reduce__(self) -> tuple[type[Owner], tuple[()]]:
        return Owner, ()


def state_of(layer: object) -> State:
    """A layer's state, a new one if it has none yet."""
    state: State = vars(layer).setdefault(ATTRIBUTE, State())
    return state


def name_of(layer: object) -> str:
    """What messages call a layer: "Layer 2 (Scale)", or "Scale" where it stands in no model."""
    place, name = state_of(layer).place, type(layer).__name__
    return f"Layer {place} ({name})" if place else name
