"""`ReLUClassifier` and `ReLURegressor` are estimators of scikit-learn, with the same scores wherever they train."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import coo_array, csc_matrix, csr_array
from sklearn.base import clone
from sklearn.datasets import load_diabetes, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.integrations.sklearn import ReLUClassifier, ReLURegressor
from tests.cases import long
from tests.ray_clusters import RayCluster
from tests.twin import Array

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore::dist_relu.TrainingWarning"
)

QUICK = ("check_estimator_cloneable", "check_parameters_default_constructible")
"""Checks that train little; all others train networks for some seconds each."""


def checks() -> Iterator[Any]:
    """All checks of scikit-learn, none left out."""
    for estimator in (ReLUClassifier(), ReLURegressor()):
        for one, check in estimator_checks_generator(estimator):
            name = f"{type(one).__name__}-{check.func.__name__}"
            marks = () if check.func.__name__ in QUICK else pytest.mark.long
            yield pytest.param(one, check, marks=marks, id=name)


@pytest.mark.parametrize(("estimator", "check"), [*checks()])
def test_scikit_learn_takes_them_for_its_own(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def samples(digits: dr.data.Split) -> tuple[Array, Array]:
    return digits.train.x[:400], digits.train.y[:400]


def small(**parameters: Any) -> ReLUClassifier:
    return ReLUClassifier(
        (16,), **{"max_iter": 5, "batch_size": 50, "learning_rate_init": 0.01, "random_state": 3, **parameters}
    )


def with_elements_twice(x: Array) -> Any:
    """Compressed rows in which every element stands twice, with half of its value."""
    halves = np.repeat(csr_array(x).data / 2, 2)
    return csr_array((halves, np.repeat(csr_array(x).indices, 2), csr_array(x).indptr * 2), x.shape)


def test_digits_are_learned_as_well_as_by_scikit_learn(digits: dr.data.Split) -> None:
    ours = ReLUClassifier(max_iter=30, random_state=1).fit(digits.train.x, digits.train.y)
    theirs = MLPClassifier(max_iter=30, random_state=1).fit(digits.train.x, digits.train.y)
    assert ours.score(digits.test.x, digits.test.y) >= theirs.score(digits.test.x, digits.test.y) - 0.01
    assert [weights.shape for weights in ours.coefs_] == [weights.shape for weights in theirs.coefs_]
    assert [biases.shape for biases in ours.intercepts_] == [biases.shape for biases in theirs.intercepts_]
    assert len(ours.loss_curve_) == ours.n_iter_ == 30
    assert ours.out_activation_ == theirs.out_activation_
    assert np.allclose(ours.predict_proba(digits.test.x).sum(axis=1), 1)
    assert np.allclose(np.exp(ours.predict_log_proba(digits.test.x)), ours.predict_proba(digits.test.x))


@pytest.mark.parametrize(
    "places",
    [
        {"n_workers": 2},
        *long(
            {"n_workers": 1, "backend": "local"},
            {"n_workers": -1},
            {"n_workers": 9},
            {"n_workers": 2, "solver": "lbfgs"},
        ),
    ],
)
def test_workers_change_no_bit(places: dict[str, Any], samples: tuple[Array, Array]) -> None:
    alone = small(**{**places, "n_workers": 1, "backend": "serial"}).fit(*samples)
    elsewhere = small(**places).fit(*samples)
    assert elsewhere.model_.sha256() == alone.model_.sha256()
    assert elsewhere.loss_curve_ == alone.loss_curve_


@pytest.mark.parametrize(
    ("as_sparse", "parameters"),
    [
        (with_elements_twice, {"early_stopping": True}),
        *long((csr_array, {"n_workers": 2}), (csc_matrix, {"solver": "lbfgs"}), (coo_array, {})),
    ],
)
def test_sparse_samples_are_as_good_as_dense_ones(
    as_sparse: Callable[[Array], Any], parameters: dict[str, Any], samples: tuple[Array, Array]
) -> None:
    (x, y), sparse = samples, as_sparse(samples[0])
    dense, estimator = small(**parameters).fit(x, y), small(**parameters).fit(sparse, y)
    assert estimator.model_.sha256() == dense.model_.sha256()
    assert (estimator.predict_proba(sparse) == dense.predict_proba(x)).all()
    assert estimator.score(sparse, y) == dense.score(x, y)


def test_partial_fits_take_sparse_samples(samples: tuple[Array, Array]) -> None:
    (x, y), dense, estimator = samples, small(), small()
    for _ in range(2):
        dense.partial_fit(x, y, classes=range(10))
        estimator.partial_fit(csr_array(x), y, classes=range(10))
    assert estimator.model_.sha256() == dense.model_.sha256()


@pytest.mark.chaos
def test_actors_change_no_bit(ray_cluster: RayCluster, samples: tuple[Array, Array]) -> None:
    alone, on_ray = (small(early_stopping=True, **places) for places in ({}, {"n_workers": 2, "backend": "ray"}))
    grid = {"alpha": [1e-4, 1.0]}
    searches = [GridSearchCV(estimator, grid, cv=2).fit(*samples) for estimator in (alone, on_ray)]
    assert (searches[0].cv_results_["mean_test_score"] == searches[1].cv_results_["mean_test_score"]).all()
    assert searches[0].best_estimator_.model_.sha256() == searches[1].best_estimator_.model_.sha256()


@pytest.mark.long
def test_a_search_in_processes_finds_what_a_search_here_does(samples: tuple[Array, Array]) -> None:
    """Their fits start workers of their own."""
    grid = {"hidden_layer_sizes": [(8,), (16,)]}
    here = GridSearchCV(small(), grid, cv=2).fit(*samples)
    nested = GridSearchCV(small(n_workers=2), grid, cv=2, n_jobs=2).fit(*samples)
    assert (nested.cv_results_["mean_test_score"] == here.cv_results_["mean_test_score"]).all()
    assert nested.best_estimator_.model_.sha256() == here.best_estimator_.model_.sha256()


def test_they_stand_in_pipelines(samples: tuple[Array, Array]) -> None:
    pipeline = make_pipeline(StandardScaler(), small())
    assert cross_val_score(pipeline, *samples, cv=3).mean() > 0.7


@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd", optim.RMSprop(0.001)])
def test_partial_fits_add_up_to_a_fit(solver: Any, samples: tuple[Array, Array]) -> None:
    at_once, in_parts = small(solver=solver).fit(*samples), small(solver=solver)
    for _ in range(5):
        in_parts.partial_fit(*samples, classes=range(10))
    assert in_parts.model_.sha256() == at_once.model_.sha256()
    assert in_parts.loss_curve_ == at_once.loss_curve_


def test_lbfgs_finds_the_minimum_that_scikit_learn_does(samples: tuple[Array, Array]) -> None:
    x, y = samples[0].astype(float), samples[1]
    parameters: dict[str, Any] = {"solver": "lbfgs", "alpha": 10.0, "random_state": 1, "max_iter": 500}
    ours, theirs = (kind((), **parameters).fit(x, y) for kind in (ReLUClassifier, MLPClassifier))
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-4)
    assert np.allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-2)
    assert not hasattr(ours, "partial_fit")


def test_partial_fits_take_samples_as_they_come(samples: tuple[Array, Array]) -> None:
    x, y = samples
    estimator = small()
    for _ in range(10):
        for first in (0, 130, 190):
            estimator.partial_fit(x[first : first + 200], y[first : first + 200], classes=range(10))
    assert estimator.score(x, y) > 0.9
    with pytest.raises(ValueError, match="goes on with classes"):
        estimator.partial_fit(x, y + 1)


def test_a_warm_start_goes_on_from_the_parameters_so_far(samples: tuple[Array, Array]) -> None:
    estimator = small(warm_start=True).fit(*samples)
    first = estimator.loss_
    assert estimator.fit(*samples).loss_curve_[5] < first
    assert len(estimator.loss_curve_) == 10


def test_weights_are_as_good_as_repetitions(samples: tuple[Array, Array]) -> None:
    x, y = samples
    times = np.random.default_rng(0).integers(0, 4, len(x))
    whole: dict[str, Any] = {"batch_size": 10_000, "max_iter": 5, "random_state": 1, "alpha": 1.0}
    weighted = ReLUClassifier(**whole).fit(x.astype(float), y, sample_weight=times)
    repeated = ReLUClassifier(**whole).fit(np.repeat(x.astype(float), times, axis=0), np.repeat(y, times))
    assert np.allclose(weighted.predict_proba(x), repeated.predict_proba(x), rtol=1e-9)


def test_balanced_classes_count_alike(samples: tuple[Array, Array]) -> None:
    x, y = samples
    kept = (y < 2) & ((y == 0) | (np.cumsum(y == 1) <= 3))
    x, y = x[kept], y[kept]
    weight_of_ones = (y == 0).sum() / (y == 1).sum()
    balanced = small(class_weight="balanced").fit(x, y)
    by_hand = small(class_weight={0: 1, 1: weight_of_ones}).fit(x, y)
    by_sample = small().fit(x, y, sample_weight=np.where(y == 1, weight_of_ones, 1.0))
    assert np.allclose(balanced.predict_proba(x), by_hand.predict_proba(x), atol=1e-4)
    assert by_sample.model_.sha256() == by_hand.model_.sha256()


def test_early_stopping_ends_with_the_best_epoch(samples: tuple[Array, Array]) -> None:
    estimator = ReLUClassifier((16,), early_stopping=True, max_iter=200, n_iter_no_change=3, random_state=1)
    estimator.fit(*samples)
    scores = estimator.validation_scores_
    assert estimator.best_validation_score_ == max(scores)
    assert estimator.n_iter_ == len(scores) < 200
    at_best = ReLUClassifier(
        (16,), early_stopping=True, max_iter=int(np.argmax(scores)) + 1, n_iter_no_change=3, random_state=1
    )
    assert at_best.fit(*samples).model_.sha256() == estimator.model_.sha256()


def test_a_fit_that_has_not_converged_is_warned_of(samples: tuple[Array, Array]) -> None:
    with pytest.warns(ConvergenceWarning, match="max_iter=5 epochs are over"):
        small().fit(*samples)


def test_learning_rates_that_fall(samples: tuple[Array, Array]) -> None:
    sgd: dict[str, Any] = {"solver": "sgd", "learning_rate_init": 0.1, "max_iter": 20}
    constant = small(**sgd).fit(*samples)
    assert small(**sgd, learning_rate="invscaling", power_t=0.0).fit(*samples).loss_ == constant.loss_
    assert small(**sgd, learning_rate="invscaling").fit(*samples).loss_ > constant.loss_
    impatient = {**sgd, "tol": 0.5, "n_iter_no_change": 1}
    assert small(**impatient).fit(*samples).n_iter_ < small(**impatient, learning_rate="adaptive").fit(*samples).n_iter_


def test_labels_of_which_samples_may_have_several() -> None:
    x, y = make_multilabel_classification(200, n_classes=4, random_state=1)
    x = StandardScaler().fit_transform(x)
    ours = ReLUClassifier((32,), max_iter=100, random_state=1).fit(x, y)
    theirs = MLPClassifier((32,), max_iter=100, random_state=1).fit(x, y)
    assert ours.predict(x).shape == ours.predict_proba(x).shape == y.shape
    assert accuracy_score(y, ours.predict(x)) > accuracy_score(y, theirs.predict(x)) - 0.05
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=0.3)


def test_several_numbers_are_predicted_at_once() -> None:
    x, y = load_diabetes(return_X_y=True, scaled=True)
    y = (y - y.mean()) / y.std()
    single = ReLURegressor(max_iter=100, random_state=1).fit(x, y)
    assert single.score(x, y) > 0.4
    both = ReLURegressor(max_iter=100, random_state=1, early_stopping=True).fit(x, np.stack([y, -y], axis=1))
    assert both.predict(x).shape == (len(x), 2)
    assert both.score(x, np.stack([y, -y], axis=1)) > 0.4


def test_networks_of_ones_own(samples: tuple[Array, Array]) -> None:
    x, y = samples
    images = x.reshape(-1, 8, 8, 1)
    network = nn.Sequential(nn.Flatten(), nn.Dense(8), nn.ReLU(), nn.Dense(10))
    estimator = clone(ReLUClassifier(model=network, max_iter=3, random_state=1)).fit(images, y)
    assert estimator.predict(images).shape == y.shape
    made = ReLUClassifier(model=lambda outputs: nn.mlp((16,), outputs), max_iter=3).fit(x, y)
    assert made.model_.output_shape == (10,)
    assert not network.is_built
    assert not hasattr(made, "coefs_")
    with pytest.raises(dr.DataError, match=r"outputs of shape \(9,\); these targets need \(10,\)"):
        ReLUClassifier(model=nn.mlp((16,), 9)).fit(x, y)


def children() -> set[str]:
    """The processes that this one has started, and that are there."""
    return {pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}


@pytest.mark.long
def test_fitted_estimators_hold_no_process(samples: tuple[Array, Array]) -> None:
    before = children()
    estimator = small(n_workers=2).fit(*samples)
    assert children() == before
    loaded = pickle.loads(pickle.dumps(estimator))
    assert (loaded.predict(samples[0]) == estimator.predict(samples[0])).all()
    loaded.partial_fit(*samples)


@dataclass(frozen=True)
class CtrlC(optim.Schedule):
    """A learning rate, until somebody interrupts the fourth epoch."""

    def at(self, epoch: float) -> float:
        if epoch > 3:
            raise KeyboardInterrupt
        return 0.1


def test_interrupted_fits_leave_what_was_learned(samples: tuple[Array, Array]) -> None:
    estimator = small(solver=optim.SGD(CtrlC()))
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(*samples)
    assert estimator.n_iter_ == len(estimator.loss_curve_) == 3
    assert estimator.score(*samples) == small(solver=optim.SGD(0.1), max_iter=3).fit(*samples).score(*samples)


def test_models_are_saved_like_others(samples: tuple[Array, Array], tmp_path: Path) -> None:
    estimator = small().fit(*samples)
    dr.save_model(estimator.model_, tmp_path / "model.safetensors")
    assert dr.load_model(tmp_path / "model.safetensors").sha256() == estimator.model_.sha256()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"activation": "swish"}, "activation='swish': expected \"identity\""),
        ({"solver": "newton"}, "solver='newton': expected \"adam\""),
        ({"n_workers": 0}, "n_workers=0: must be at least 1"),
        ({"hidden_layer_sizes": (0,)}, r"hidden_layer_sizes\[0\]=0: must be at least 1"),
        ({"learning_rate": "fast"}, "learning_rate='fast'"),
        ({"backend": "dask"}, "backend='dask' is unknown"),
        ({"validation_fraction": 1.5}, "validation_fraction=1.5"),
    ],
)
def test_parameters_that_make_no_sense(parameters: dict[str, Any], message: str, samples: tuple[Array, Array]) -> None:
    with pytest.raises(ValueError, match=message):
        ReLUClassifier(**parameters).fit(*samples)
