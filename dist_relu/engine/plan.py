"""The coordinator decides before a run what becomes of a batch, and what may happen in a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

from dist_relu.comm.buckets import BUCKET_BYTES
from dist_relu.comm.halves import Rounding
from dist_relu.compression import Compression, Rounded
from dist_relu.compression.feedback import ErrorFeedback
from dist_relu.core.arrays import Array
from dist_relu.core.checks import (
    check_bool,
    check_fields,
    check_int,
    check_positive,
    check_share,
    instance_of,
    one_of,
    optional,
)
from dist_relu.data import Augment
from dist_relu.engine.weighting import ClassWeight, Sampler
from dist_relu.kernels.ordered_sum import ordered_sum
from dist_relu.nn import Loss
from dist_relu.optim import ElementwiseOptimizer, Groups, LayerwiseOptimizer, Optimizer
from dist_relu.optim.averaging import Averaging
from dist_relu.partition import PartialSums


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """Options say what may happen in a step beside the optimiser's rule; see `Coordinator.fit`."""

    clip_norm: float | None = None
    clip_value: float | None = None
    ema_decay: float | None = None
    accumulate: int = 1
    on_nan: Literal["stop", "skip"] = "stop"
    stale_gradients: bool = False
    compression: Compression | None = None

    def __post_init__(self) -> None:
        limit = optional(check_positive)
        check_fields(
            self,
            "",
            clip_norm=limit,
            clip_value=limit,
            ema_decay=optional(check_share),
            accumulate=check_int,
            on_nan=one_of("stop", "skip"),
            stale_gradients=check_bool,
            compression=optional(instance_of(Compression)),
        )

    @property
    def skips(self) -> bool:
        """Tell whether a step is left out whose loss or result is not finite, and the run goes on."""
        return self.on_nan == "skip"

    @property
    def need_whole_gradient(self) -> bool:
        """Tell whether chunks can't be updated before all of them are summed."""
        clips = self.clip_norm is not None or self.clip_value is not None
        return clips or self.accumulate > 1 or self.stale_gradients or self.feedback is not None

    @property
    def rounding(self) -> Rounding | None:
        """What sums of groups are rounded to on the way between nodes, if the compression is of that kind."""
        return self.compression.to if isinstance(self.compression, Rounded) else None

    @property
    def feedback(self) -> ErrorFeedback | None:
        """The compression, if it is of the other kind."""
        return self.compression if isinstance(self.compression, ErrorFeedback) else None

    @property
    def num_averages(self) -> int:
        """Count the vectors (P,) that lie behind all others."""
        return int(self.ema_decay is not None)


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """A plan says what becomes of a batch of `batch_size` samples, which is cut into `shards`.

    class_weight, sampler: see `Coordinator.fit`.  bucket_bytes: see `Trainer.bucket_bytes`.
    averaging: of replicas; None where all shards go on with one model.
    first_shard: what is drawn at random for the first shard is drawn as for this one, and so on.
    """

    loss: Loss
    optimizer: Optimizer
    options: StepOptions
    batch_size: int
    shards: int
    seed: int
    augment: Augment | None = None
    class_weight: ClassWeight | None = None
    sampler: Sampler | None = None
    bucket_bytes: int = BUCKET_BYTES
    averaging: Averaging | None = None
    first_shard: int = 0

    @property
    def num_vectors(self) -> int:
        """Count the vectors (P,) of a generation, those of one replica where there are some."""
        return len(self._names_of_generation)

    @property
    def num_outer(self) -> int:
        """Count the vectors (P,) of the outer rule of an averaging: the outer parameters, and its states."""
        outer = self.averaging and self.averaging.outer
        return 1 + outer.num_states if outer else 0

    @property
    def vector_names(self) -> list[str]:
        """Name the vectors (P,) of a run: parameters, states of optimiser and compression, a gradient, an average.

        Where there are replicas, the first one is the mean of their parameters, and the last one that of their
        averages; then there are the outer rule's, and those of the generations of all replicas.
        """
        names = self._names_of_generation
        if self.averaging is None:
            return names
        outer = ["outer parameters", *(f"outer state {i}" for i in range(self.num_outer - 1))][: self.num_outer]
        replicas = [f"replica {number} {name}" for number in range(self.averaging.replicas) for name in names]
        return ["parameters", *outer, *replicas, *["average"] * self.options.num_averages]

    @property
    def compression_states(self) -> slice:
        """Where the states of the compression are among the vectors of a generation."""
        first, feedback = 1 + self.optimizer.num_states, self.options.feedback
        return slice(first, first + len(feedback.state_names(self.shards)) if feedback else first)

    @property
    def most_workers(self) -> int:
        """Tell how many workers there is work for."""
        return self.averaging.replicas if self.averaging else self.shards

    @property
    def _names_of_generation(self) -> list[str]:
        rule, options = self.optimizer, self.options
        num_states = check_int(f"{type(rule).__name__}.num_states", rule.num_states, 0)
        names = ["parameters", *(f"optimizer state {i}" for i in range(num_states))]
        names += options.feedback.state_names(self.shards) if options.feedback else ()
        names += ["gradient of the step before"] * options.stale_gradients
        return names + ["average"] * options.num_averages

    @property
    def cuts_by_param(self) -> bool:
        """Tell whether bits depend on norms of each parameter, or on its group, so that no two may share a piece."""
        return isinstance(self.optimizer, LayerwiseOptimizer | Groups) or self.options.clip_norm is not None


@final
class LeaveGradient(ElementwiseOptimizer):
    """This rule writes the gradient where the new parameters would go."""

    @property
    def num_states(self) -> int:
        return 0

    def hyper(self, step: int, epoch: float) -> list[float]:
        return []

    def update(self, gradient: PartialSums, old: Sequence[Array], new: Sequence[Array], hyper: Array) -> None:
        ordered_sum(*gradient, new[0])
