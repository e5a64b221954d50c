"""The entry point of the library: `start()` and what it returns.

The coordinator is the process that runs the user's script. It puts data and parameters into shared memory, hands
out calls, and gathers what comes back; gradients never pass through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar, final

import numpy as np
import numpy.typing as npt

from dist_relu.compression import Compression
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_bool, check_callable, check_int, check_is, instance_of, optional
from dist_relu.data import Augment
from dist_relu.data.rows import Rows
from dist_relu.engine import inference
from dist_relu.engine.arguments import (
    Data,
    check_has_parameters,
    check_model,
    check_statistics,
    checked_samples,
    dataset_of,
    loss_for,
    numbers,
)
from dist_relu.engine.objective import Objective, check_is_function
from dist_relu.engine.plan import LeaveGradient, StepOptions
from dist_relu.engine.planning import planned
from dist_relu.engine.replicas import check_options
from dist_relu.engine.results import Evaluation, FitResult
from dist_relu.engine.scoring import checked_metrics
from dist_relu.engine.site import Site
from dist_relu.engine.training import gradient_of
from dist_relu.engine.watch.observer import ProgressHandler
from dist_relu.engine.watch.records import Watch
from dist_relu.engine.weighting import ClassWeight, Sampler
from dist_relu.errors import BackendError
from dist_relu.metrics.named import Metric
from dist_relu.nn import Loss, Sequential
from dist_relu.optim import LBFGS, DiLoCo, Iteration, LocalSGD, Minimum, Optimizer, lbfgs
from dist_relu.partition import check_fit
from dist_relu.run.state import RunState
from dist_relu.run.tracing.trace import Trace
from dist_relu.run.trainer import Trainer
from dist_relu.runtime.backends import Backend, start_backend
from dist_relu.runtime.recovery import FailurePolicy, OnFailure, Recovery, parse_workers
from dist_relu.runtime.replicated import ReplicatedArrays
from dist_relu.runtime.workers import Workers
from dist_relu.runtime.world import World


def start(
    workers: int | str | None = None,
    *,
    backend: Backend | str = "auto",
    threads_per_worker: int = 1,
    address: str | None = None,
    nodes: int | None = None,
    spread: bool = False,
    on_failure: OnFailure = "replace",
    max_restarts: int = 5,
    worker_timeout_s: float | None = None,
) -> Coordinator:
    """Start workers, or join those that there are.

    workers: by default all ranks under mpirun, one for each CPU of a Ray cluster, otherwise one for each physical core.
    "2:8": at least 2, and on Ray as many up to 8 as the cluster has room for, while nodes come and go.
    backend: "serial" (this process), "local" (processes of this machine), "mpi" (the ranks of this MPI job), "ray"
    (actors of a Ray cluster), or "auto": "mpi" under mpirun, otherwise "local". Under mpirun this returns on rank 0
    only; the other ranks work until rank 0's script ends, and end with it. Or a `Backend` that was started, such as
    `dist_relu.runtime.backends.LocalBackend(2)`; the other arguments are its own then.
    threads_per_worker: for BLAS in functions of your own (`Coordinator.run`), layers compute on one thread; on Ray also
    the CPUs that each worker asks for.
    address: HOST:PORT of a Ray cluster. By default the one in RAY_ADDRESS, or the one that `ray start` left on this
    machine, or else one that is started for these workers and ends with them.
    nodes: on Ray, start workers on exactly so many nodes, as many on each, rather than on as few as have room. It waits
    for nodes whose CPUs are busy. Workers that come later, for dead ones or by `resize`, go where there is room, best
    where the dead one was.
    spread: on Ray, place workers on as many nodes as there are.
    on_failure: what is done when a worker dies. "replace": another one takes its place, or where there is no room for
    one, it is "shrink": the others do its work too; training, `evaluate` and `forward` then go on, to the same bits.
    `Coordinator.run` raises WorkerLost, since a function of yours may have done half of something, and the next call
    finds the workers whole. "stop": the call raises WorkerLost. In an MPI job nobody survives the death of a rank.
    max_restarts: how often in a row workers may be lost, without a complete step in between, before the loss is raised.
    worker_timeout_s: how long a worker may be stopped by a signal before it counts as lost, by default 20.

    Raises TypeError and ValueError for arguments that make no sense, `BackendError` when the workers can't be started.
    """
    least, most = parse_workers(workers)
    if nodes is not None and least != most:
        raise ValueError(f"nodes={nodes} can't be kept while workers={workers!r} come and go. Pass one number.")
    policy = FailurePolicy(on_failure, max_restarts)  # checks them before anything starts
    started = start_backend(
        backend,
        least,
        threads_per_worker,
        address=address,
        nodes=nodes,
        spread=spread,
        worker_timeout_s=worker_timeout_s,
    )
    policy.least = 1 if least == most else least or 1
    policy.most = most or started.num_workers
    return Coordinator(started, policy)


P = ParamSpec("P")
T = TypeVar("T")


def surviving(function: Callable[Concatenate[Coordinator, P], T]) -> Callable[Concatenate[Coordinator, P], T]:
    """Let a function of a coordinator be done again when workers are lost; it changes nothing before it is done."""

    @wraps(function)
    def survivor(coordinator: Coordinator, *args: P.args, **kwargs: P.kwargs) -> T:
        check_is("coordinator", coordinator, Coordinator)
        return coordinator.survive(lambda: function(coordinator, *args, **kwargs))

    return survivor  # type: ignore[return-value]


@final
class Coordinator:
    """Hands out work to all workers of a backend and gathers the results.

    Every method is collective over the workers and returns when all are done. What an exception in a worker says
    about its rank is in its notes. Use as a context manager, or call `close`.
    """

    def __init__(self, backend: Backend, policy: FailurePolicy | None = None) -> None:
        """Raises ValueError when these workers have a coordinator already: both would number their tasks from 1."""
        self._workers = Workers(backend, policy)
        self._site = Site(self._workers)

    @property
    def workers(self) -> int:
        """The number of workers."""
        return len(self._workers.peers)

    @property
    def nodes(self) -> int:
        """The number of machines that they run on."""
        return self.replicas.num_nodes

    @property
    def backend(self) -> str:
        """The backend's name."""
        return self._workers.backend

    def __repr__(self) -> str:
        if self._workers.are_closed:
            return f"Coordinator({self.backend}, closed)"
        try:
            workers = self.workers
        except BackendError as error:
            return f"Coordinator({self.backend}: {error})"
        return f"Coordinator({self.backend}, workers: {workers})"

    def close(self) -> None:
        """End the workers, or release them; under mpirun they stay for the next `start()`."""
        self._workers.close()

    def __enter__(self) -> Self:
        self._workers.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fit(
        self,
        model: Sequential,
        data: Data,
        optimizer: Optimizer,
        *,
        epochs: int,
        batch_size: int,
        loss: Loss | None = None,
        shards: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        accumulate: int = 1,
        ema_decay: float | None = None,
        on_nan: Literal["stop", "skip"] = "stop",
        stale_gradients: bool = False,
        compression: Compression | None = None,
        averaging: LocalSGD | DiLoCo | None = None,
        augment: Augment | None = None,
        class_weight: ClassWeight | None = None,
        sampler: Sampler | None = None,
        watch: Watch | None = None,
        verify_every: int | None = None,
        trace: Trace | None = None,
        validation: Data | None = None,
        validate_every: Literal["epoch"] | int = "epoch",
        metrics: str | Sequence[str] = (),
        callbacks: Sequence[Any] = (),
        on_progress: ProgressHandler | None = None,
    ) -> FitResult:
        """Train `model` in place.  A model without parameters is initialised from `seed` first.

        data: a `Dataset`, or (x, y), or (x, y, weights).
        batch_size: over all workers; the last batch of an epoch may be smaller.
        loss: by default cross-entropy for class numbers, otherwise the mean squared error; `nn.BinaryCrossEntropy` is
        for labels (N, K) of 0 and 1, of which a sample may have several.
        shards: into how many parts every batch is cut, by default the number of workers; with the same shards and
        seed, any number of workers ends with the same bits.
        clip_norm: scale the whole gradient down to at most this Euclidean norm, as torch.nn.utils.clip_grad_norm_ does.
        clip_value: cut every element of the gradient to at most this magnitude; comes before `clip_norm`.
        accumulate: batches per step. The gradient is the mean over the samples of all of them; memory is needed for
        one.
        ema_decay: also keep an exponential average of the parameters, average = decay·average + (1 - decay)·parameters
        after every step, from the initial ones on; `FitResult.average` has it, and `model` the parameters themselves.
        on_nan: "stop", and TrainingDiverged says where in a step numbers became NaN or infinite. Or "skip" steps whose
        loss, or whatever they lead to, is not finite: they leave parameters, optimiser and average as they were, their
        losses in `FitResult.losses` are NaN, and training goes on, unless it is so in 100 steps one after another.
        stale_gradients: each step goes along the gradient of the step before, clipped as it was there, and the first
        one along zero: what training comes to where the exchange of a gradient takes a whole step. Delayed SGD, with a
        delay of one; any rule. Langford et al. (2009), algorithm 1.
        compression: what gradients become between groups of shards, as on machines that send fewer bytes:
        `compression.Rounded`, `TopK` or `PowerSGD`; the same bits on any number of workers. Comes before clipping.
        averaging: `optim.LocalSGD` or `optim.DiLoCo`, by which replicas of the model, of a group of shards each, take
        some steps by themselves and are averaged then. How many there are is fixed by that, and not by the workers, of
        which there may be fewer; so 64 replicas are the same 64 on one worker. `model` is the mean of all, at any time.
        Each replica has parameters and states of its own, so the nodes need memory for as many as they have, twice.
        augment: random changes of the samples, fixed by seed, step and shard.
        class_weight: how much samples of each class count, {class: weight}, others 1; or "balanced", so that all
        classes count alike: samples / (classes · samples of the class), as in scikit-learn. It multiplies
        `Dataset.weights`, where there are some. The loss of a step is then the weighted mean over all samples of the
        step, whoever computes them: the sum of weight · loss by the sum of weights.
        sampler: draws the samples of an epoch with replacement, as many as there are. "weighted": each as often as its
        weight says; "balanced": all classes equally often, and within a class as weights say. Losses then know no
        weights any more.
        watch: look at some of the steps; `FitResult.watched` has what was seen. It changes no bits. With `averaging`
        it looks at the first replica.
        verify_every: let other workers compute one shard of every so many steps as well. Since bits may not differ, a
        difference raises FaultyWorker with rank and host: with three workers or more of the one who is wrong, of two of
        both; a single worker computes such shards twice. Costs no bits.
        trace: gets where the time of the steps goes, on every worker; see `Trace`. It changes no bits.
        validation, validate_every, metrics, callbacks, on_progress: see `Trainer.fit`.

        Every call begins anew, whatever was fitted before: with epoch 0 of order and schedule, and an optimizer without
        momentum yet. To go on, hold the run: `trainer` is this in as many calls as you like.

        Warns with DataWarning when real targets look like classes, and no loss says what they are, and with
        TrainingWarning of what is hardly meant: samples far from -1 to 1, labels with gaps, a batch larger than the
        data, a loss that has grown.
        Raises DataError, PartitionError and ValueError for what does not fit, before anything is done, and
        TrainingDiverged when the loss becomes NaN or infinite; the model then has the parameters before that step.
        KeyboardInterrupt, and whatever your callbacks and layers raise, ends the training and goes on to the caller;
        the model then has the parameters after the last complete step, and with `ema_decay` the exception's `average`
        is the model with their average.
        """
        epochs = check_int("epochs", epochs)
        trainer = self.trainer(
            model,
            data,
            optimizer,
            batch_size=batch_size,
            loss=loss,
            shards=shards,
            seed=seed,
            shuffle=shuffle,
            clip_norm=clip_norm,
            clip_value=clip_value,
            accumulate=accumulate,
            ema_decay=ema_decay,
            on_nan=on_nan,
            stale_gradients=stale_gradients,
            compression=compression,
            averaging=averaging,
            augment=augment,
            class_weight=class_weight,
            sampler=sampler,
            watch=watch,
            verify_every=verify_every,
            trace=trace,
        )
        with trainer:
            return trainer.fit(
                epochs=epochs,
                validation=validation,
                validate_every=validate_every,
                metrics=metrics,
                callbacks=callbacks,
                on_progress=on_progress,
            )

    def trainer(
        self,
        model: Sequential,
        data: Data,
        optimizer: Optimizer,
        *,
        batch_size: int,
        loss: Loss | None = None,
        shards: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        accumulate: int = 1,
        ema_decay: float | None = None,
        on_nan: Literal["stop", "skip"] = "stop",
        stale_gradients: bool = False,
        compression: Compression | None = None,
        averaging: LocalSGD | DiLoCo | None = None,
        augment: Augment | None = None,
        class_weight: ClassWeight | None = None,
        sampler: Sampler | None = None,
        watch: Watch | None = None,
        verify_every: int | None = None,
        trace: Trace | None = None,
        state: RunState | None = None,
    ) -> Trainer:
        """Hold a run: `trainer.fit(epochs=3)` and then `trainer.fit(epochs=2)` is `fit(..., epochs=5)`, to the bit.

        The arguments are those of `fit`.  state: where to go on from, see `Trainer.state`; with any number of workers
        and on any backend.

        Raises what `fit` raises before anything is done, and CheckpointError when an argument that fixes the bits
        (model, data, optimizer, seed, shards, ...) is not that of `state`.
        """
        options = StepOptions(
            clip_norm=clip_norm,
            clip_value=clip_value,
            ema_decay=ema_decay,
            accumulate=accumulate,
            on_nan=on_nan,
            stale_gradients=stale_gradients,
            compression=compression,
        )
        optional(instance_of(RunState))("state", state)
        optional(instance_of(Watch))("watch", watch)
        optional(instance_of(Trace))("trace", trace)
        verify_every = optional(check_int)("verify_every", verify_every)
        shuffle = check_bool("shuffle", shuffle)
        if shards is None and state is not None:
            shards = state.shards
        if isinstance(optimizer, LBFGS):
            raise TypeError(
                "LBFGS takes the loss of all samples, as often as its line search needs it: "
                "coordinator.minimize(model, data, optimizer)."
            )
        data, plan, image_shape = planned(
            self.workers,
            model,
            data,
            check_is("optimizer", optimizer, Optimizer),
            options=options,
            batch_size=check_int("batch_size", batch_size),
            loss=loss,
            shards=shards,
            seed=seed,
            shuffle=shuffle,
            averaging=averaging,
            augment=augment,
            class_weight=class_weight,
            sampler=sampler,
        )
        check_options(plan, verifies=verify_every is not None, traces=trace is not None)
        return Trainer(
            self._site,
            model,
            data,
            plan,
            shuffle=shuffle,
            image_shape=image_shape,
            watch=watch,
            verify_every=verify_every,
            trace=trace,
            state=state,
        )

    def minimize(
        self,
        model: Sequential,
        data: Data,
        rule: LBFGS | None = None,
        *,
        loss: Loss | None = None,
        shards: int | None = None,
        seed: int = 0,
        class_weight: ClassWeight | None = None,
        on_iteration: Callable[[Iteration], object] | None = None,
    ) -> Minimum:
        """Train `model` in place by L-BFGS: all workers compute the loss of all samples and its gradient.

        For small models and data sets, as scikit-learn's solver="lbfgs" is; the same bits on any number of workers, for
        the same shards. A model without parameters is initialised from `seed` first, otherwise it goes on from those
        that it has.

        rule: by default `optim.LBFGS()`, which says what it stops at.  loss, shards, class_weight: as for `fit`.
        on_iteration: called after every iteration; one that raises StopIteration ends the minimisation.

        Raises ValueError for models with layers that draw at random (Dropout, RReLU) or follow statistics (BatchNorm),
        whatever `fit` raises for data that don't suit the model, and FloatingPointError where the first loss is no
        number. KeyboardInterrupt, and whatever `on_iteration` raises, leaves the model with the parameters after the
        last complete iteration.
        """
        rule = LBFGS() if rule is None else check_is("rule", rule, LBFGS)
        optional(check_callable)("on_iteration", on_iteration)
        check_is("model", model, Sequential)
        check_is_function(model)
        data, plan, _ = planned(
            self.workers,
            model,
            data,
            LeaveGradient(),
            loss=loss,
            shards=shards,
            seed=seed,
            shuffle=False,
            class_weight=class_weight,
        )
        with closing(Objective(self._site, model, data, plan, rule.weight_decay)) as objective:

            def take(values: Array, iteration: Iteration) -> None:
                model.values = values
                if on_iteration:
                    on_iteration(iteration)

            return lbfgs.minimize(objective, model.values.copy(), rule, take)

    def gradients(
        self, model: Sequential, data: Data, *, loss: Loss | None = None, shards: int | None = None
    ) -> dict[str, Array]:
        """The gradient of the (weighted) mean loss over all samples, for each parameter by its name; takes no step.

        loss: see `evaluate`.  Raises FloatingPointError when the loss is NaN or infinite.
        """
        data = dataset_of(data)
        check_has_parameters(model)
        loss = loss_for(data, model.loss if loss is None else loss)
        shards = self.workers if shards is None else check_int("shards", shards)
        check_fit(len(data), len(data), shards, self.workers)
        check_statistics(check_model(model, data, loss), len(data), len(data), shards)
        values, mean = self._site.survive(lambda: gradient_of(self._site, model, data, loss, shards))
        if not np.isfinite(mean) or not np.isfinite(values).all():
            raise FloatingPointError(f"The loss is {mean}; it has no finite gradient.")
        views = zip(model.names, model.params, model.views(values), strict=True)
        return {name: view for name, param, view in views if param.momentum is None}

    def evaluate(
        self, model: Sequential, data: Data, *, loss: Loss | None = None, metrics: Metric | Sequence[Metric] = ()
    ) -> Evaluation:
        """Mean loss and accuracy over all samples, each counted exactly once, with the same bits on any workers.

        loss: by default that which the model was trained with, where it is one of other targets than the usual, and
        otherwise the default one for such targets.  Where samples have weights, means are weighted.
        metrics: also these, in `Evaluation.metrics`; "all", names, or functions of targets and outputs. All are exact,
        and equal to what scikit-learn makes of the same outputs.
            Of classes: "accuracy", "balanced_accuracy", "precision", "recall", "f1" (of class 1 where there are two,
            otherwise the mean over classes; or "f1_macro", "f1_micro", "f1_weighted", ...), "matthews_corrcoef",
            "top_2", "top_3", ..., "roc_auc" (each class against all others) and "average_precision", "log_loss",
            "brier", "calibration_error"; "report" has precision, recall, F1 and the number of samples of each class,
            "confusion" the matrix of true and predicted classes, "calibration" a curve. The model's outputs are taken
            for logits, unless its last layer is Softmax.
            Of labels: "accuracy" (all of a sample's are right), "precision", "recall", "f1", "roc_auc", ...
            Of real numbers: "r2", "mae", "mse", "rmse".

        Raises ValueError for a name that is none of such targets.
        """
        check_has_parameters(model)
        data = dataset_of(data).in_classes(model.classes)
        loss = loss_for(data, model.loss if loss is None else loss)
        wanted = checked_metrics(metrics, check_model(model, data, loss), data, loss)
        return self._site.evaluate(model, data, loss, wanted)

    def forward(self, model: Sequential, x: npt.ArrayLike | Rows) -> Array:
        """The model's outputs, (N, *output_shape), for samples x (N, *input_shape)."""
        return self._site.outputs(model, checked_samples(model, x))

    def activations(self, model: Sequential, x: npt.ArrayLike | Rows) -> list[Array]:
        """The outputs of every layer, (N, ...) each, for samples x (N, *input_shape)."""
        return self._site.activations(model, checked_samples(model, x))

    def relu(self, x: npt.ArrayLike, *, partitions: int | None = None) -> Array:
        """max(x, 0) of an array of any shape; NaN goes through.

        partitions: into how many parts the array is cut for the workers, by default as many as there are workers.
        """
        return self._relu(None, x, partitions)

    def relu_backward(self, dy: npt.ArrayLike, x: npt.ArrayLike, *, partitions: int | None = None) -> Array:
        """dy where x > 0 or NaN, else 0: the gradient of ReLU's input x, from that of its output; same shapes."""
        return self._relu(dy, x, partitions)

    def _relu(self, dy: npt.ArrayLike | None, x: npt.ArrayLike, partitions: int | None) -> Array:
        partitions = self.workers if partitions is None else check_int("partitions", partitions)
        x = numbers("x", x)
        if dy is not None:
            dy = numbers("dy", dy)
            if dy.shape != x.shape:
                raise ValueError(f"dy has shape {dy.shape}, but x has shape {x.shape}; expected the same.")

        def call() -> Array:
            with self.replicas.for_a_call() as replicas:
                return inference.relu(self.run, replicas, x, dy, partitions)

        return self._site.survive(call)

    @property
    def recoveries(self) -> Sequence[Recovery]:
        """What was lost so far, and how it went on."""
        return tuple(self._workers.recoveries)

    def survive(self, call: Callable[[], T]) -> T:
        """Do what a call does that uses these workers; again when some are lost, so it must not mind that.

            returns = coordinator.survive(lambda: coordinator.run(play, seed))

        `fit`, `evaluate`, `forward` and their kin need nothing of the kind.
        """
        return self._site.survive(call)

    @property
    def can_resize(self) -> bool:
        """Whether there can be more or fewer workers: on "local" and "ray"."""
        return self._workers.can_regroup

    def resize(self, workers: int) -> None:
        """Be so many workers from now on: some start, or some end; between calls, and between the steps of a fit.

        A run goes on with them to the same bits. Raises UnsuitableBackend on "serial" and "mpi", BackendError where
        there is no room for so many.
        """
        self._workers.resize(check_int("workers", workers))

    @property
    def replicas(self) -> ReplicatedArrays:
        """Makes arrays that every node has a copy of, for functions to `run`."""
        return self._workers.replicas

    def run(
        self,
        function: Callable[[World, Any], Any],
        request: Any,
        on_event: Callable[[Any], object] | None = None,
    ) -> list[Any]:
        """Run function(world, request) on every worker; returns what they return, by rank.

        What all methods here are made of. Every worker gets the same function and request, pickled, and finds its part
        by `world.rank`; in the function `world.barrier.wait()` waits for the others. on_event: called here with what
        workers pass to `world.report`.
        """
        return self._site.run(function, request, on_event)
