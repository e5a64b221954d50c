"""What `ReLUClassifier` and `ReLURegressor` have in common: parameters, training and outputs.  N samples."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from dist_relu import nn
from dist_relu.coordinator import Coordinator, start
from dist_relu.core.arrays import Array
from dist_relu.core.checks import (
    check_bool,
    check_choice,
    check_float,
    check_int,
    check_not_negative,
    check_positive,
)
from dist_relu.data import Dataset
from dist_relu.errors import DataError
from dist_relu.integrations.sklearn.parameters import (
    Model,
    multilayer_perceptron,
    network_of,
    optimizer_for,
    workers_for,
)
from dist_relu.integrations.sklearn.samples import Samples, rows_of
from dist_relu.integrations.sklearn.stopping import Stopping
from dist_relu.optim import LBFGS
from dist_relu.run.live_progress import LiveProgress
from dist_relu.run.state import RunState
from dist_relu.run.trainer import Trainer

_BATCH = 200
"""The most samples of a batch with batch_size="auto"."""

_DTYPES = np.float32, np.float64
"""What is computed in; other types of samples become the first one."""


class Job(NamedTuple):
    """What is trained, and where.  batch_size: of all workers together."""

    coordinator: Coordinator
    network: nn.Sequential
    data: Dataset
    batch_size: int
    shards: int
    seed: int


def takes_steps(network: Network) -> bool:
    """Tell whether there is something to go on with after some samples, for `available_if`."""
    if network.solver == "lbfgs":
        raise AttributeError('partial_fit needs a solver that takes steps; "lbfgs" looks at all samples each time.')
    return True


@dataclass(eq=False, repr=False)
class Network(BaseEstimator, ABC):
    """A network with the parameters of scikit-learn's MLPs, which mean what they mean there, and some of ours.

    hidden_layer_sizes: of dense layers.  activation: "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish",
    "tanh", "logistic" or "identity".
    model: instead of both an `nn.Sequential`, or a function of the number of outputs that returns one. It ends with a
    number for each class or target, before any softmax. Samples may then have any shape.
    solver: "adam", "sgd", "adamw", "lbfgs", or an update rule of `dist_relu.optim`, which is taken as it is.
    alpha: half the squared weights (not biases), times alpha and divided by the number of samples of a batch, are added
    to what is minimised; with "adamw" it is the decoupled weight decay.
    learning_rate: with "sgd" also "invscaling" or "adaptive".
    early_stopping: hold `validation_fraction` of the samples back, stop when their score is no better, and take the
    parameters of the best epoch.
    random_state: fixes initial parameters, the order of samples, and what is held back.
    n_workers: how many processes train; -1 for one on each core.  backend: "local", "ray", "mpi" or "serial"; by
    default this process, or several of this machine.
    shards: into how many parts a batch is cut, and so the most workers that have something to do. Scores and bits
    depend on it, and not on `n_workers` and `backend`.

    Workers start in `fit` and end with it. Samples of float64 are computed in float64, others in float32, which is
    faster. Sparse samples (`scipy.sparse`) stay sparse in memory: rows are made dense batch by batch, on their way into
    the network, whose first layer has as many weights as if they were dense. Interrupted by Ctrl-C, `fit` leaves the
    estimator with what it has learned so far.
    """

    hidden_layer_sizes: int | Sequence[int] = (100,)
    activation: str = "relu"
    _: KW_ONLY
    model: Model | None = None
    solver: Any = "adam"
    alpha: float = 0.0001
    batch_size: int | str = "auto"
    learning_rate: str = "constant"
    learning_rate_init: float = 0.001
    power_t: float = 0.5
    max_iter: int = 200
    shuffle: bool = True
    random_state: Any = None
    tol: float = 1e-4
    verbose: bool = False
    warm_start: bool = False
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    early_stopping: bool = False
    validation_fraction: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    n_iter_no_change: int = 10
    max_fun: int = 15000
    n_workers: int = 1
    backend: str | None = None
    shards: int = 4

    @abstractmethod
    def _encoded(self, y: Array, dtype: np.dtype[Any], *, is_first: bool) -> Array:
        """The targets of a `Dataset`.  is_first: they say what there is to learn; others must be of their kind."""

    @abstractmethod
    def _weights(self, y: Array, sample_weight: Array | None) -> Array | None:
        """How much each sample counts, (N,); None where all count the same."""

    @abstractmethod
    def _num_outputs(self, targets: Array) -> int:
        """How many outputs the network needs."""

    @abstractmethod
    def _loss(self) -> nn.Loss:
        """What is minimised."""

    @property
    @abstractmethod
    def _loss_scale(self) -> float:
        """How many times scikit-learn's is our loss."""

    @abstractmethod
    def _score_of(self, outputs: Array, samples: Samples) -> float:
        """The score of samples that were held back."""

    @abstractmethod
    def _strata(self, targets: Array) -> Array | None:
        """Of what samples that are held back have the same shares; None for of nothing."""

    @property
    def coefs_(self) -> list[Array]:
        """The weights (inputs, units) of the dense layers."""
        return [layer.weight.value for layer in self._dense_layers("coefs_")]

    @property
    def intercepts_(self) -> list[Array]:
        """The biases (units,) of the dense layers."""
        return [layer.offset.value for layer in self._dense_layers("intercepts_") if layer.offset is not None]

    @property
    def n_layers_(self) -> int:
        """The number of dense layers, and one for the inputs."""
        return len(self._dense_layers("n_layers_")) + 1

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Train on samples X (N, features) and their targets y; with `warm_start` from the parameters so far.

        sample_weight: (N,), how much each sample counts: a weight of 2 is two of the sample in a batch.
        """
        begins = not (self.warm_start and hasattr(self, "model_"))
        self._steps = 0
        self._vectors: Array | None = None
        return self._learn(X, y, sample_weight, begins=begins, epochs=check_int("max_iter", self.max_iter))

    def _partial_fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None) -> Self:
        """Go on for an epoch of these samples, with the states of the update rule."""
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True: it trains for a single epoch.")
        return self._learn(X, y, sample_weight, begins=not hasattr(self, "model_"), epochs=1, is_partial=True)

    def _learn(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None,
        *,
        begins: bool,
        epochs: int,
        is_partial: bool = False,
    ) -> Self:
        self._check_parameters()
        samples = self._validated(X, y, sample_weight, begins=begins, is_partial=is_partial)
        random = check_random_state(self.random_state)
        seed = int(random.randint(2**31))
        network = self._new_network(samples) if begins else self.model_
        held_back: Samples | None = None
        takes_steps = self.solver != "lbfgs"
        if self.early_stopping and takes_steps:
            samples, held_back = samples.split(self.validation_fraction, random, self._strata(samples.targets))
        num_samples = len(samples.targets)
        batch_size = self._batch_size(num_samples) if takes_steps else num_samples
        shards = min(check_int("shards", self.shards), batch_size, num_samples)
        with workers_for(self.n_workers, self.backend, shards) as coordinator:
            job = Job(coordinator, network, samples.dataset(), batch_size, shards, seed)
            if takes_steps:
                converged = self._take_steps(job, held_back, epochs, begins=begins, is_partial=is_partial)
            else:
                converged = self._minimize(job, epochs, begins=begins)
        if not (converged or is_partial):
            warnings.warn(
                f"max_iter={epochs} {'epochs' if takes_steps else 'iterations'} are over, and the training has not "
                "converged yet.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    def _take_steps(self, job: Job, held_back: Samples | None, epochs: int, *, begins: bool, is_partial: bool) -> bool:
        """Train batch by batch; returns whether that was stopped because it gets no better."""
        with self._trainer(job, goes_on=is_partial) as trainer:
            self._begin(job.network, is_new=begins)
            stopping = self._stopping(len(job.data), self._validation(job.coordinator, held_back))
            live = LiveProgress() if self.verbose else None
            try:
                trainer.fit(epochs=epochs, on_progress=live, callbacks=[stopping, *([live] if live else [])])
            finally:
                self.t_: int = stopping.num_seen
                self._note(stopping.losses, stopping.scores)
                if stopping.best_values is not None:
                    self.model_.values = stopping.best_values
            if is_partial:
                self._steps, self._vectors = trainer.step, trainer.state().vectors
        return stopping.converged

    def _minimize(self, job: Job, iterations: int, *, begins: bool) -> bool:
        """Train on all samples at a time; returns whether a minimum was found."""
        losses: list[float] = []
        rule = LBFGS(
            max_iterations=iterations,
            max_evaluations=check_int("max_fun", self.max_fun),
            gradient_tolerance=self.tol * self._loss_scale,
            weight_decay=self._decay(job) * self._loss_scale,
        )
        self._begin(job.network, is_new=begins)
        try:
            return job.coordinator.minimize(
                job.network,
                job.data,
                rule,
                loss=self._loss(),
                shards=job.shards,
                seed=job.seed,
                on_iteration=lambda iteration: losses.append(iteration.loss / self._loss_scale),
            ).converged
        finally:
            self._note(losses, [])

    def _validated(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None,
        *,
        begins: bool,
        is_partial: bool,
    ) -> Samples:
        x, y_array = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            multi_output=True,
            dtype=_DTYPES,
            allow_nd=self.model is not None,
            reset=begins,
        )
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True)
        targets = self._encoded(y_array, x.dtype, is_first=begins and not is_partial)
        return Samples(x, targets, self._weights(y_array, weights))

    def _new_network(self, samples: Samples) -> nn.Sequential:
        outputs = self._num_outputs(samples.targets)
        if self.model is None:
            network = multilayer_perceptron(self.hidden_layer_sizes, self.activation, outputs, samples.x.dtype)
        else:
            network = network_of(self.model, outputs)
        network.build(samples.x.shape[1:])
        if network.output_shape != (outputs,):
            raise DataError(f"The model has outputs of shape {network.output_shape}; these targets need ({outputs},).")
        return network

    def _decay(self, job: Job) -> float:
        """The factor of half the squared weights in scikit-learn's loss, which has a mean by weights besides."""
        mean_weight = 1.0 if job.data.weights is None else float(job.data.weights.mean())
        return self.alpha / (min(job.batch_size, len(job.data)) * mean_weight)

    def _trainer(self, job: Job, *, goes_on: bool) -> Trainer:
        """Hold a run.  goes_on: with the states that the update rule had after the last partial fit."""
        optimizer = optimizer_for(
            self.solver,
            lr=self.learning_rate_init,
            decay=self._decay(job),
            adamw_decay=self.alpha,
            momentum=self.momentum,
            nesterov=self.nesterovs_momentum,
            betas=(self.beta_1, self.beta_2),
            epsilon=self.epsilon,
            loss_scale=self._loss_scale,
            has_biases=any(name.endswith(".bias") for name in job.network.names),
        )

        def new(state: RunState | None) -> Trainer:
            return job.coordinator.trainer(
                job.network,
                job.data,
                optimizer,
                batch_size=job.batch_size,
                loss=self._loss(),
                shards=job.shards,
                seed=job.seed,
                shuffle=self.shuffle,
                state=state,
            )

        trainer = new(None)
        vectors = getattr(self, "_vectors", None)
        if not goes_on or vectors is None:
            return trainer
        fresh = trainer.state()
        if fresh.vectors.shape != vectors.shape:  # those of another rule
            return trainer
        step = -(-self._steps // trainer.steps_per_epoch) * trainer.steps_per_epoch  # where an epoch begins
        records = np.broadcast_to(np.zeros((), fresh.records.dtype), step)
        return new(replace(fresh, step=step, vectors=vectors, records=records))

    def _validation(self, coordinator: Coordinator, held_back: Samples | None) -> Callable[[], float] | None:
        """What gives the score of samples that were held back."""
        if held_back is None:
            return None
        return lambda: self._score_of(coordinator.forward(self.model_, rows_of(held_back.x)), held_back)

    def _stopping(self, num_samples: int, validate: Callable[[], float] | None) -> Stopping:
        return Stopping(
            learning_rate=self.learning_rate if self.solver == "sgd" else "constant",
            lr=self.learning_rate_init,
            power_t=self.power_t,
            tol=self.tol,
            patience=self.n_iter_no_change,
            loss_scale=self._loss_scale,
            num_samples=num_samples,
            num_seen=self.t_,
            validate=validate,
        )

    def _begin(self, network: nn.Sequential, *, is_new: bool) -> None:
        """Take a network that is about to be trained, and forget what others have come to."""
        self.model_ = network
        if is_new or not hasattr(self, "t_"):
            self.t_ = 0
            self.loss_curve_: list[float] = []
            self.validation_scores_: Any = [] if self.early_stopping else None

    def _note(self, losses: list[float], scores: list[float]) -> None:
        """Note what a fit has come to, whatever has ended it."""
        self.n_iter_ = len(losses)
        self.loss_curve_ = [*self.loss_curve_, *losses]
        if self.loss_curve_:
            self.loss_ = self.loss_curve_[-1]
        self.best_loss_ = None if scores else min(self.loss_curve_, default=None)
        self.best_validation_score_ = None
        if scores:
            self.validation_scores_ = [*(self.validation_scores_ or []), *scores]
            self.best_validation_score_ = max(self.validation_scores_)

    def _outputs(self, X: npt.ArrayLike) -> Array:
        """What the network makes of samples, (N, outputs); in this process, with the bits that workers have."""
        check_is_fitted(self)
        x = validate_data(self, X, accept_sparse="csr", dtype=_DTYPES, allow_nd=self.model is not None, reset=False)
        with start(backend="serial") as here:
            return here.forward(self.model_, rows_of(x))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _batch_size(self, num_samples: int) -> int:
        if self.batch_size == "auto":
            return min(_BATCH, num_samples)
        return check_int("batch_size", self.batch_size)

    def _dense_layers(self, name: str) -> list[nn.Dense]:
        if self.model is not None or not hasattr(self, "model_"):
            why = "it was not fitted yet" if self.model is None else "its layers are those of model_"
            raise AttributeError(f"This {type(self).__name__} has no {name}: {why}.")
        return [layer for layer in self.model_.layers if isinstance(layer, nn.Dense)]

    def _check_parameters(self) -> None:
        """Raise TypeError and ValueError for what no other check meets before anything is done."""
        check_not_negative("alpha", self.alpha)
        check_positive("learning_rate_init", self.learning_rate_init)
        check_choice("learning_rate", self.learning_rate, ("constant", "invscaling", "adaptive"))
        check_float("power_t", self.power_t)
        check_float("tol", self.tol, least=0, finite=False)
        check_int("n_iter_no_change", self.n_iter_no_change)
        check_float("validation_fraction", self.validation_fraction, above=0, below=1)
        for name in ("warm_start", "early_stopping", "shuffle", "verbose"):
            check_bool(name, getattr(self, name))
