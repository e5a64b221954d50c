"""What a layer is, what a parameter is, and where a pass through a model puts the arrays it makes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import numpy as np
import numpy.typing as npt

from dist_relu.core.arrays import Array
from dist_relu.core.checks import (
    check_bool,
    check_fields,
    check_float,
    check_int,
    check_ints,
    check_seed,
    check_sequence,
    instance_of,
    optional,
)
from dist_relu.core.guards import guard
from dist_relu.kernels.products import multiply_transposed
from dist_relu.nn import boundary
from dist_relu.nn.draws import Draws
from dist_relu.nn.initializers import Initializer

Shape = tuple[int, ...]


@final
@dataclass(eq=False)
class Param:
    """A weight, a bias or a running statistic: views of the model's flat vectors of parameters and gradients.

    `fan_in` and `fan_out` are the numbers of connections that initialisers scale by. A parameter with a `momentum` is
    not trained: it is a running mean of what layers pass to `Pass.statistic`: value = (1 - momentum) value + momentum
    new.
    """

    name: str
    shape: Shape
    init: Initializer
    fan_in: int
    fan_out: int
    momentum: float | None = None
    value: Array = field(init=False, repr=False)
    grad: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(
            self,
            name=instance_of(str),
            shape=lambda name, value: check_ints(name, value, 0),
            init=instance_of(Initializer),
            fan_in=check_int,
            fan_out=check_int,
            momentum=optional(partial(check_float, least=0, most=1)),
        )

    def __setattr__(self, name: str, value: Any) -> None:
        """Let a parameter have other numbers: an array that it has already takes them, for others look there too."""
        if name in ("value", "grad"):
            self._check(name, value)
            before = vars(self).get(name)
            if before is not None:
                before[...] = value
                return
        elif name == "shape" and "value" in vars(self):
            raise ValueError(f"{self.name} is in use, and keeps its shape: {self.shape}.")
        object.__setattr__(self, name, value)

    def places(self) -> dict[str, Any]:
        """Where "value" and "grad" stand: steps move them to other arrays, which are known to be for this parameter."""
        return vars(self)

    def _check(self, name: str, array: Any) -> None:
        """Raise an error for what kernels can't work on in place of the parameter's value or gradient."""
        if not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.float64):
            what = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
            raise TypeError(f"{self.name}.{name} is {what}; expected an array of float32 or float64.")
        if array.shape != self.shape:
            raise ValueError(f"{self.name}.{name} has shape {array.shape}; expected {self.shape}.")
        if not array.flags.carray:
            raise ValueError(f"{self.name}.{name} must lie in one piece that may be written to, in C order.")
        before = vars(self).get("value")
        if before is not None and array.dtype != before.dtype:
            raise ValueError(f"{self.name}.{name} is of {array.dtype}; expected {before.dtype}, as its value is.")


class PassObserver(ABC):
    """Sees what comes out of the layers of a model while a pass goes forward through it.

    Layers have the numbers that they have in `Sequential.passes`: neighbours that are computed together are one, of
    which the last is seen. Arrays are the pass's own, and must be left as they are.
    """

    @abstractmethod
    def see_output(self, number: int, y: Array) -> None:
        """Look at the output of a layer, (N, ..., K), for all samples of the pass."""


class PreactivationObserver(PassObserver):
    """Sees what goes into activations, too, for which some layers must go over their memory once more."""

    @abstractmethod
    def see_preactivations(self, number: int, x: Array, bias: Array | None) -> None:
        """Look at x + bias, which goes into the activation that a layer is or ends with, before its output is seen.

        x: (N, ..., K), of some or all samples of the pass.  bias: (K,); None for zeros.
        """


class Pass(ABC):
    """One pass forward and backward: hands out memory and takes the gradients that are products."""

    @property
    @abstractmethod
    def observer(self) -> PassObserver | None:
        """Who sees what goes through the model; None where nobody does."""

    @property
    @abstractmethod
    def training(self) -> bool:
        """Whether this is training, where layers may drop, perturb or count, or evaluation."""

    @property
    @abstractmethod
    def sample_weight(self) -> float:
        """What one sample counts in what is minimised: where that is a mean over a batch, one over its size."""

    @abstractmethod
    def empty(self, shape: Shape, dtype: npt.DTypeLike) -> Array:
        """An uninitialised array with one row per sample.

        Layers must ask for the same arrays in the same order in every pass.
        """

    @abstractmethod
    def scratch(self, name: str, shape: Shape, dtype: npt.DTypeLike) -> Array:
        """An uninitialised array of any shape, valid until somebody asks for scratch memory of the same name."""

    @abstractmethod
    def generator(self) -> np.random.Generator:
        """Random numbers for this pass: a stream for each call, fixed by seed, step, shard and number of the call.

        Steps with layers that draw from it go through Python each time; the two methods below have streams alike.
        """

    @abstractmethod
    def random_bits(self, out: Array) -> None:
        """out = random bits, those of `generator().bytes`.  out: uint16, of any shape, in one piece."""

    @abstractmethod
    def uniform(self, out: Array) -> None:
        """out = numbers from [0, 1), those of `generator().random`.  out: of any shape, in one piece."""

    @abstractmethod
    def writable(self, dy: Array) -> Array:
        """The values of `dy`, which the caller of `backward` passed in, in memory that may be overwritten."""

    @abstractmethod
    def product(self, weight: Param, x: Array, dz: Array) -> None:
        """Leave xᵀ·dz as the gradient of `weight`.  x: (N·T, C), dz: (N·T, K), weight: (C, K), T >= 1.

        Who multiplies, and when, is the run's business; x and dz must stay as they are until the pass ends.
        """

    @abstractmethod
    def statistic(self, running: Param, value: Array) -> None:
        """Leave a statistic of this pass's samples, to be averaged over the batch and into the running mean."""

    @abstractmethod
    def batch_sums(self, values: Array) -> Array:
        """Sums of `values` over the whole batch, of which this pass may hold a part.  float64, of any shape.

        Layers must ask for the same sums in the same order in every pass, forward and backward: the passes over the
        other parts come as far meanwhile.
        """

    def bookmark(self) -> Callable[[], object]:
        """Return what brings this pass back to where it is, so that it goes on from here once more."""
        return lambda: None

    def owns(self, array: Array) -> bool:
        """Whether an array is one of `empty`, whose memory is the same in every pass over these samples."""
        return False


class PlainPass(Pass):
    """Fresh memory for every array, gradients multiplied on the spot: what a single process needs.

    training: whether layers drop, perturb and count; by default they don't.  seed: of what they draw.
    """

    def __init__(self, *, training: bool = False, seed: int = 0) -> None:
        self._training = check_bool("PlainPass(training)", training)
        self._draws = Draws(check_seed(seed))

    @property
    def observer(self) -> PassObserver | None:
        return None

    @property
    def training(self) -> bool:
        return self._training

    @property
    def sample_weight(self) -> float:
        return 1.0

    def empty(self, shape: Shape, dtype: npt.DTypeLike) -> Array:
        return np.empty(shape, dtype)

    def scratch(self, name: str, shape: Shape, dtype: npt.DTypeLike) -> Array:
        return np.empty(shape, dtype)

    def generator(self) -> np.random.Generator:
        return self._draws.generator()

    def random_bits(self, out: Array) -> None:
        self._draws.random_bits(out)

    def uniform(self, out: Array) -> None:
        self._draws.uniform(out)

    def writable(self, dy: Array) -> Array:
        return np.array(dy, order="C")

    def product(self, weight: Param, x: Array, dz: Array) -> None:
        check_product(weight, x, dz)
        multiply_transposed(x, 0, x.shape[1], dz, weight.grad)

    def statistic(self, running: Param, value: Array) -> None:
        assert running.momentum is not None
        running.value += running.momentum * (value - running.value)

    def batch_sums(self, values: Array) -> Array:
        return values


PLAIN = PlainPass()


class Layer(ABC):
    """A step of a model.

    Layers are dataclasses: the arguments of the constructor are fields, and all else is `field(init=False)`.
    That is how models are copied to workers and written into checkpoints.

    What users pass to these methods is checked, and so is what those of layers of one's own return: see
    `dist_relu.nn.boundary`.
    """

    def __init_subclass__(cls) -> None:
        guard(cls, build=boundary.build, forward=boundary.forward, backward=boundary.backward)

    def __setattr__(self, name: str, value: Any) -> None:
        if name[0] != "_":
            boundary.check_change(self, name)
        object.__setattr__(self, name, value)

    @abstractmethod
    def build(self, input_shape: Shape) -> Shape:
        """Fix the shape of a sample's input; returns that of its output (both without the batch dimension).

        Raises ValueError when the layer can't take that shape.
        """

    @abstractmethod
    def params(self) -> Sequence[Param]:
        """The parameters, in the order in which they stand in the flat vector."""

    @abstractmethod
    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        """(N, *input_shape) to (N, *output_shape).  Remembers what `backward` needs."""

    @abstractmethod
    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        """Leave the gradients of the parameters; return the gradient of the input of the last `forward`.

        dy: (N, *output_shape), may be overwritten in training: a layer that needs it after passing it on must copy it.
        Without `wants_dx` the returned array has no meaning.
        """


def check_layers(name: str, value: object) -> tuple[Layer, ...]:
    """A check for `dist_relu.core.checks`: layers, one after another."""
    return check_sequence(name, value, instance_of(Layer), "layers")


def check_product(weight: Param, x: Array, dz: Array) -> None:
    """Raise ValueError for factors that `Pass.product` doesn't take."""
    for name, factor in (("x", x), ("dz", dz)):
        if not isinstance(factor, np.ndarray) or factor.dtype != weight.value.dtype or not factor.flags.c_contiguous:
            raise ValueError(
                f"run.product of {weight.name}: {name} must be an array of {weight.value.dtype} in one piece."
            )
    if x.ndim != 2 or dz.ndim != 2 or len(x) != len(dz) or (x.shape[1], dz.shape[1]) != weight.shape:
        raise ValueError(
            f"run.product of {weight.name}: x has shape {x.shape} and dz has shape {dz.shape}; expected (N, C) and "
            f"(N, K) for a weight of shape (C, K), which is {weight.shape}."
        )
