"""The last layers of policies: from a network's outputs to distributions of actions.  N states, A actions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_fields, check_floats, check_int
from dist_relu.core.guards import guard
from dist_relu.kernels import policy as kernels
from dist_relu.kernels.copies import take_columns
from dist_relu.nn.layer import PLAIN, Layer, Param, Pass, Shape

Method = Callable[..., None]

_LOG_STD = -20.0, 2.0
"""The bounds of Haarnoja et al. (2018)."""


class PolicyHead(Layer):
    """What a policy ends with: makes of its outputs what fixes the distribution of actions, and last a state's value.

    Actions stand in arrays (N, `action_width`), as the head computes with them; `chosen` makes of them what an
    environment understands.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        guard(cls, draw=_draw, best=_best, log_probs=_log_probs, log_probs_backward=_log_probs_backward)

    @property
    @abstractmethod
    def inputs(self) -> int:
        """How many outputs the network before it must have."""

    @property
    @abstractmethod
    def action_width(self) -> int:
        """Numbers of an action."""

    @abstractmethod
    def noise(self, shape: Shape, rng: np.random.Generator) -> Array:
        """The random numbers that actions are drawn with, (*shape, action_width)."""

    @abstractmethod
    def draw(self, outputs: Array, noise: Array, actions: Array) -> None:
        """actions = random ones.  outputs: of this layer, (N, ...).  noise, actions: (N, action_width)."""

    @abstractmethod
    def best(self, outputs: Array, actions: Array) -> None:
        """actions = the likeliest ones, (N, action_width)."""

    @abstractmethod
    def chosen(self, actions: Array) -> Array:
        """Actions as an environment takes them: (N,) integers, or (N, A) float32."""

    @abstractmethod
    def log_probs(self, outputs: Array, actions: Array, log_probs: Array, entropies: Array) -> None:
        """The logarithms of the probabilities of actions that were taken, and entropies; both (N,)."""

    @abstractmethod
    def log_probs_backward(
        self, outputs: Array, actions: Array, d_log_probs: Array, d_entropies: Array, d_outputs: Array
    ) -> None:
        """d_outputs = the gradient of `outputs`, but for the value's column, from those of `log_probs`."""


def _check_rows(head: PolicyHead, outputs: Array, actions: Array, **others: Array) -> None:
    """Raise ValueError unless these arrays are of as many states, and wide enough for the head."""
    widths = {"outputs": (head.inputs,), "d_outputs": (head.inputs,)}
    widths |= {"actions": (head.action_width,), "noise": (head.action_width,)}
    for name, array in {"outputs": outputs, "actions": actions, **others}.items():
        expected = (len(outputs), *widths.get(name, ()))
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.shape != expected:
            what = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else f"{array!r}"
            raise ValueError(f"{type(head).__name__}: {name} is {what}; expected floats of shape {expected}.")


def _check_taken(head: PolicyHead, actions: Array) -> None:
    """Raise ValueError for actions that the head has none of."""
    if isinstance(head, Categorical) and not ((actions >= 0) & (actions <= head.actions - 1)).all():
        raise ValueError(f"{type(head).__name__}: actions must be from 0 to {head.actions - 1}.")


def _draw(kind: type, method: Method, head: PolicyHead, outputs: Array, noise: Array, actions: Array) -> None:
    _check_rows(head, outputs, actions, noise=noise)
    method(head, outputs, noise, actions)


def _best(kind: type, method: Method, head: PolicyHead, outputs: Array, actions: Array) -> None:
    _check_rows(head, outputs, actions)
    method(head, outputs, actions)


def _log_probs(
    kind: type, method: Method, head: PolicyHead, outputs: Array, actions: Array, log_probs: Array, entropies: Array
) -> None:
    _check_rows(head, outputs, actions, log_probs=log_probs, entropies=entropies)
    _check_taken(head, actions)
    method(head, outputs, actions, log_probs, entropies)


def _log_probs_backward(
    kind: type,
    method: Method,
    head: PolicyHead,
    outputs: Array,
    actions: Array,
    d_log_probs: Array,
    d_entropies: Array,
    d_outputs: Array,
) -> None:
    _check_rows(head, outputs, actions, d_log_probs=d_log_probs, d_entropies=d_entropies, d_outputs=d_outputs)
    _check_taken(head, actions)
    method(head, outputs, actions, d_log_probs, d_entropies, d_outputs)


@final
@dataclass(eq=False)
class Categorical(PolicyHead):
    """Softmax: x (N, A + 1), logits and value, to y (N, A + 1), logarithms of probabilities and value."""

    actions: int
    _y: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, actions=check_int)

    def build(self, input_shape: Shape) -> Shape:
        return _checked(self, input_shape)

    def params(self) -> Sequence[Param]:
        return []

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        self._y = run.empty(x.shape, x.dtype)
        kernels.log_probabilities(x, self._y)
        return self._y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        dx = run.writable(dy)
        kernels.log_probabilities_backward(dx, self._y)
        return dx

    @property
    def inputs(self) -> int:
        return self.actions + 1

    @property
    def action_width(self) -> int:
        return 1

    def noise(self, shape: Shape, rng: np.random.Generator) -> Array:
        return rng.random((*shape, 1))

    def draw(self, outputs: Array, noise: Array, actions: Array) -> None:
        kernels.draw_category(outputs, noise, actions)

    def best(self, outputs: Array, actions: Array) -> None:
        kernels.likeliest_category(outputs, actions)

    def chosen(self, actions: Array) -> Array:
        return actions[:, 0].astype(np.int64)

    def log_probs(self, outputs: Array, actions: Array, log_probs: Array, entropies: Array) -> None:
        kernels.category_log_probs(outputs, actions, log_probs, entropies)

    def log_probs_backward(
        self, outputs: Array, actions: Array, d_log_probs: Array, d_entropies: Array, d_outputs: Array
    ) -> None:
        kernels.category_log_probs_backward(outputs, actions, d_log_probs, d_entropies, d_outputs)


@final
@dataclass(eq=False)
class TanhGaussian(PolicyHead):
    """tanh of a normal distribution, stretched to (low, high).  Haarnoja et al. (2018), appendix C.

    x, y: (N, 2A + 1): means, logarithms of standard deviations (in y within -20 and 2), and value. Actions are computed
    with before tanh. Densities are those of tanh itself; entropies those before it, for tanh has none in closed form.

    low, high: A numbers each.
    """

    low: Sequence[float]
    high: Sequence[float]
    _x: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, low=check_floats, high=check_floats)
        if not self.low or len(self.low) != len(self.high) or not (np.array(self.low) < self.high).all():
            raise ValueError(f"TanhGaussian(low={self.low}, high={self.high}): expected as many, and low < high.")

    def build(self, input_shape: Shape) -> Shape:
        return _checked(self, input_shape)

    def params(self) -> Sequence[Param]:
        return []

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        self._x = x
        y = run.empty(x.shape, x.dtype)
        kernels.bound_columns(x, self.action_width, 2 * self.action_width, *_LOG_STD, y)
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        dx = run.writable(dy)
        kernels.bound_columns_backward(dx, self._x, self.action_width, 2 * self.action_width, *_LOG_STD)
        return dx

    @property
    def inputs(self) -> int:
        return 2 * self.action_width + 1

    @property
    def action_width(self) -> int:
        return len(self.low)

    def noise(self, shape: Shape, rng: np.random.Generator) -> Array:
        return rng.standard_normal((*shape, self.action_width))

    def draw(self, outputs: Array, noise: Array, actions: Array) -> None:
        kernels.draw_normal(outputs, noise, actions)

    def best(self, outputs: Array, actions: Array) -> None:
        take_columns(outputs, 0, actions)

    def chosen(self, actions: Array) -> Array:
        low, high = np.array(self.low), np.array(self.high)
        within: Array = low + (np.tanh(actions.astype(float)) + 1) / 2 * (high - low)
        return within.astype(np.float32)

    def log_probs(self, outputs: Array, actions: Array, log_probs: Array, entropies: Array) -> None:
        kernels.tanh_normal_log_probs(outputs, actions, log_probs, entropies)

    def log_probs_backward(
        self, outputs: Array, actions: Array, d_log_probs: Array, d_entropies: Array, d_outputs: Array
    ) -> None:
        kernels.tanh_normal_log_probs_backward(outputs, actions, d_log_probs, d_entropies, d_outputs)


def _checked(head: PolicyHead, input_shape: Shape) -> Shape:
    if input_shape != (head.inputs,):
        raise ValueError(f"{head} needs a network with {head.inputs} outputs before it, not of shape {input_shape}.")
    return input_shape
