"""What a run is watched for, beside what it does: activations, gradients and changes of weights, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from dist_relu.core.checks import check_callable, check_fields, check_int, optional
from dist_relu.core.html import share_text, table
from dist_relu.kernels.histogram import EDGES

PREACTIVATION_EDGES = EDGES
"""The limits of the bins in which pre-activations are counted: ±2ᵉ and ±1.5·2ᵉ from 2⁻⁸ to 2⁶, 0 and ±inf.

They do not depend on the data, so counts may be added and compared. A limit belongs to the bin beside it that is
farther from 0, and 0 itself to the one above it.
"""


def in_words(loss: float, accuracy: float | None) -> str:
    """What something came to: "loss 0.1234, accuracy 95.00%"."""
    return f"loss {loss:.4g}" + ("" if accuracy is None else f", accuracy {accuracy:.2%}")


@dataclass(frozen=True, kw_only=True)
class WatchedLayer:
    """What came out of a layer in a step, and how what went into its activation is distributed.

    Where layers are computed in one pass, as `Dense` and `ReLU` are, only the last of them is seen.
    sparsity: the share of exact zeros.  silent: how many of its units (places on the last axis) were 0 for every
    sample.  mean, variance: over all elements.
    preactivations: how many lie in each of the bins between `PREACTIVATION_EDGES`; NaN lies in none. None where the
    layer ends with no activation, or one that is more than a function of one number.
    """

    name: str
    num_units: int
    sparsity: float
    silent: int
    mean: float
    variance: float
    preactivations: list[int] | None


@dataclass(frozen=True, kw_only=True)
class WatchedParam:
    """A parameter in a step.

    gradient_norm: Euclidean, before anything is clipped.  update_ratio: the norm of its change over its own before
    the step; None where that was 0.
    """

    name: str
    gradient_norm: float
    update_ratio: float | None


@dataclass(frozen=True, kw_only=True)
class WatchedStep:
    """A step, as it was seen.  loss, accuracy: means over its samples; accuracy is None without classes.

    lr: None for rules of your own without an `lr`.  With `accumulate`, layers are those of the step's first batch.
    """

    step: int
    epoch: int
    loss: float
    accuracy: float | None
    lr: float | None
    samples_per_second: float
    layers: list[WatchedLayer]
    params: list[WatchedParam]

    def _repr_html_(self) -> str:
        """Tables of the layers and of the parameters, for notebooks."""
        layers = (
            (one.name, one.num_units, share_text(one.sparsity), one.silent, one.mean, one.variance)
            for one in self.layers
        )
        params = ((one.name, one.gradient_norm, one.update_ratio) for one in self.params)
        return table(
            f"Step {self.step} of epoch {self.epoch}: {in_words(self.loss, self.accuracy)}",
            ["layer", "units", "zeros", "silent", "mean", "variance"],
            layers,
            table("", ["parameter", "norm of its gradient", "change / norm"], params),
        )


@dataclass(frozen=True, kw_only=True)
class EpochSummary:
    """Means over the samples of an epoch, as they were when they were trained on; accuracy is None without classes.

    dead: for each layer of a watched run the units whose output was exactly 0 for every sample of the epoch, at the
    moment when it was trained on; all steps count, whichever are watched. None when the run was not watched.
    """

    epoch: int
    loss: float
    accuracy: float | None
    seconds: float
    dead: dict[str, list[int]] | None = None


@final
@dataclass(frozen=True)
class Watch:
    """Which steps are watched: the first one, and then one of `every`.  What `EpochSummary` has is of all steps.

    on_step: gets each of them, within a fraction of a second, and the steps are not kept for `FitResult.watched`.
    on_epoch: gets each epoch when it is over.  Both are called where `Coordinator.fit` was, in this process.
    """

    every: int = 10
    on_step: Callable[[WatchedStep], object] | None = None
    on_epoch: Callable[[EpochSummary], object] | None = None

    def __post_init__(self) -> None:
        callback = optional(check_callable)
        check_fields(self, every=check_int, on_step=callback, on_epoch=callback)
