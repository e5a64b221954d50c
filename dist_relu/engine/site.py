"""Where calls take place: the workers, and the data sets that lie where they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, final

from dist_relu.core.arrays import Array
from dist_relu.data import Dataset
from dist_relu.data.rows import Rows
from dist_relu.engine import inference
from dist_relu.engine.arguments import predicts
from dist_relu.engine.kept_models import Blueprints
from dist_relu.engine.results import Evaluation
from dist_relu.engine.scoring import predictions_of
from dist_relu.errors import WorkerLost
from dist_relu.metrics.named import Metric, measure
from dist_relu.nn import Loss, Sequential
from dist_relu.runtime.backends.base import ignore_event
from dist_relu.runtime.placed import PlacedDataset, PlacedDatasets
from dist_relu.runtime.replicated import ReplicatedArrays
from dist_relu.runtime.workers import Workers
from dist_relu.runtime.world import World

T = TypeVar("T")


@final
class Site:
    """Gives calls to all workers."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self._placed = PlacedDatasets()
        self._blueprints = Blueprints()

    @property
    def num_workers(self) -> int:
        return len(self.workers.peers)

    @property
    def replicas(self) -> ReplicatedArrays:
        """Makes arrays that every node has a copy of."""
        return self.workers.replicas

    def run(
        self,
        function: Callable[[World, Any], Any],
        request: Any,
        on_event: Callable[[Any], object] | None = None,
    ) -> list[Any]:
        """Run function(world, request) on every worker; see `Coordinator.run`."""
        replies = self.workers.run(range(self.num_workers), function, request, on_event or ignore_event)
        self.workers.note_progress()
        return replies

    def survive(self, call: Callable[[], T]) -> T:
        """Do what a call does; again when workers are lost, since it changes nothing before it is done."""
        while True:
            try:
                return call()
            except WorkerLost:
                self.workers.recover()

    def place(self, data: Dataset, model: Sequential, loss: Loss) -> PlacedDataset:
        """Bring data where the workers are; they may have changed since they were placed for an earlier call."""
        placed = self._placed.place(data, model.dtype, self.replicas)
        loss.check(placed.y.array, model.output_shape)
        return placed

    def evaluate(self, model: Sequential, data: Dataset, loss: Loss, metrics: Sequence[Metric] = ()) -> Evaluation:
        """See `Coordinator.evaluate`.  data, model, metrics: checked."""
        return self.survive(lambda: self._evaluate(model, data, loss, metrics))

    def _evaluate(self, model: Sequential, data: Dataset, loss: Loss, metrics: Sequence[Metric]) -> Evaluation:
        placed = self.place(data, model, loss)
        with self.replicas.for_a_call() as replicas:
            blueprint = self._blueprints.of(model)
            loss_sum, num_correct, outputs = inference.evaluate(
                self.run, replicas, model, blueprint, placed, loss, data.weights, keeps_outputs=bool(metrics)
            )
        total = len(data) if data.weights is None else float(data.weights.sum())
        return Evaluation(
            loss=loss_sum / total,
            accuracy=None if predicts(data, loss) == "numbers" else num_correct / total,
            num_samples=len(data),
            metrics={} if outputs is None else measure(metrics, predictions_of(model, data, loss, outputs)),
        )

    def outputs(self, model: Sequential, x: Array | Rows) -> Array:
        """See `Coordinator.forward`.  x, model: checked."""

        def call() -> Array:
            with self.replicas.for_a_call() as replicas:
                return inference.outputs(self.run, replicas, model, self._blueprints.of(model), x)

        return self.survive(call)

    def activations(self, model: Sequential, x: Array | Rows) -> list[Array]:
        """See `Coordinator.activations`.  x, model: checked."""

        def call() -> list[Array]:
            with self.replicas.for_a_call() as replicas:
                return inference.activations(self.run, replicas, model, x)

        return self.survive(call)
