"""Whatever is passed for an argument of a public class or function is taken, or refused in its name.

Classes and functions, and what they take, are found by looking; a new one is tried as soon as it is public.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Iterator
from functools import partial
from math import inf, nan
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import activations, nn, optim, rl
from dist_relu.engine.plan import StepOptions
from dist_relu.nn.description import describe

DATA = dr.Dataset(np.ones((4, 2), np.float32), np.array([0, 1, 0, 1]))
NEEDED: dict[str, dict[str, Any]] = {
    "Dense": {"units": 2},
    "Conv2d": {"channels": 2, "kernel_size": 3},
    "MaxPool2d": {"kernel_size": 2},
    "AvgPool2d": {"kernel_size": 2},
    "Embedding": {"symbols": 3, "units": 2},
    "RNN": {"units": 2},
    "Reshape": {"shape": (2, 2)},
    "Residual": {"body": [nn.ReLU()]},
    "Parallel": {"branches": [[nn.Dense(2)]]},
    "Threshold": {"threshold": 1.0, "value": 0.0},
    "ActivityPenalty": {"l1": 0.1},
    "Categorical": {"actions": 2},
    "Standardize": {"mean": [0.0], "deviation": [1.0]},
    "TanhGaussian": {"low": [-1.0], "high": [1.0]},
    "Step": {"lr": 0.1},
    "Cosine": {"lr": 0.1, "epochs": 2},
    "Exponential": {"lr": 0.1, "final": 0.01, "epochs": 2},
    "Polynomial": {"lr": 0.1, "epochs": 2},
    "Group": {"names": "biases"},
    "Groups": {"rule": optim.SGD(0.1), "groups": [optim.Group("biases")]},
    "OneCycle": {"lr": 0.1, "epochs": 2},
    "LargeBatch": {"then": optim.Constant(0.1), "batch_size": 64},
    "LocalSGD": {"replicas": 2, "steps": 2},
    "DiLoCo": {"replicas": 2, "steps": 2},
    "Scaled": {"then": optim.Constant(0.1), "factor": 0.5},
    "WarmUp": {"then": optim.Constant(0.1)},
    "PolicyLoss": {"head": nn.Categorical(2), "clip": 0.2, "value_weight": 0.5, "entropy_weight": 0.0},
    "mlp": {"hidden": (4,), "outputs": 2},
    "actor": {"hidden": (4,), "outputs": 2},
    "policy": {"state_dim": 2, "action_dim": 2},
    "cnn": {"image_shape": (8, 8, 1), "outputs": 2},
    "resnet": {"depth": 8, "image_shape": (8, 8, 1), "outputs": 2},
    "rnn": {"units": 2, "outputs": 2},
    "gain": {"activation": "relu"},
    "prelu": {"weight": 0.1},
    "threshold": {"threshold": 1.0, "value": 0.0},
    "CSVLog": {"path": "log.csv"},
    "Split": {"train": DATA, "test": DATA},
    "split": {"data": DATA, "fractions": 0.5},
    "adding": {"num_samples": 3, "steps": 4},
}
"""Arguments that can't be left out.  An optimiser's `Constant` is met as an initialiser too, and takes none there."""

VALUES: list[Any] = [
    *(
        nan,
        inf,
        -inf,
        -1,
        0,
        1,
        2.5,
        1e39,
        10**400,
        1j,
        True,
        None,
        "x",
        "",
        b"x",
        (),
        [],
        {},
        [1.5],
        ["x"],
        (nan, nan),
    ),
    *(
        np.int64(2),
        np.float64(0.5),
        np.float32(nan),
        np.bool_(True),
        np.array(2),
        np.zeros(3),
        np.zeros((2, 2)),
        np.str_("x"),
    ),
    *(object(), nn.ReLU, nn.ReLU(), optim.SGD, lambda: 0),
]

MODULES = (nn, optim, rl, dr.data)


def public_classes() -> Iterator[type]:
    for module in MODULES:
        for name in module.__all__:
            thing = getattr(module, name)
            if dataclasses.is_dataclass(thing) and isinstance(thing, type) and not inspect.isabstract(thing):
                yield thing
    yield from (dr.Watch, dr.EarlyStopping, dr.BestModel, dr.ReduceOnPlateau, dr.CSVLog, dr.LearningRateFinder)
    yield StepOptions


OF_ARRAYS = {"Param", "MixedTargets", "Dataset", "LearningResult", "LearningProgress", "Iteration", "Minimum"}
OF_FILES = {"NpyFile", "Hdf5Dataset", "TableFiles"}
"""What is made of arrays or, by `of`, of files, or is made by the library alone."""

CLASSES = [kind for kind in public_classes() if kind.__name__ not in OF_ARRAYS | OF_FILES]


def refusal(make: Callable[..., object], name: str, arguments: dict[str, Any]) -> object:
    """What is made of the arguments; None where that of this name was refused as it should be."""
    try:
        return make(**arguments)
    except (TypeError, ValueError) as error:
        if name not in str(error):
            raise AssertionError(f"{name}={arguments[name]!r}: {type(error).__name__}: {error}") from error
        return None


def needed(kind: Any) -> dict[str, Any]:
    known = {} if kind is nn.Constant else {"Constant": {"lr": 0.1}, **NEEDED}.get(kind.__name__, {})
    params = inspect.signature(kind).parameters.values()
    required = [
        param.name for param in params if param.default is param.empty and param.kind is not param.VAR_POSITIONAL
    ]
    missing = [name for name in required if name not in known]
    assert not missing, f"{kind.__name__} needs {', '.join(missing)}: give an example in NEEDED"
    return known


@pytest.fixture(scope="module")
def serial() -> Iterator[dr.Coordinator]:
    with dr.start(backend="serial") as coordinator:
        yield coordinator


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_constructors_take_what_they_are_given_or_refuse_it_by_name(kind: Any) -> None:
    for field in dataclasses.fields(kind):
        for value in VALUES if field.init else ():
            made = refusal(kind, field.name, {**needed(kind), field.name: value})
            if made is None:
                continue
            stored = getattr(made, field.name)
            assert not isinstance(stored, np.generic | np.ndarray)
            assert not (isinstance(stored, float) and np.isnan(stored))
            if isinstance(made, nn.Layer):
                json.dumps(describe(made))


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_numbers_of_numpy_are_stored_as_those_of_python(kind: Any) -> None:
    plain = kind(**needed(kind))
    for field in dataclasses.fields(kind):
        value = getattr(plain, field.name) if field.init else None
        if not isinstance(value, bool | int | float):
            continue
        wide = {bool: np.bool_, int: np.int64, float: np.float64}[type(value)](value)
        stored = getattr(kind(**{**needed(kind), field.name: wide}), field.name)
        assert (type(stored), stored) == (type(value), value)


def functions() -> Iterator[tuple[Callable[..., object], dict[str, Any]]]:
    """Functions, and their arguments for arrays."""
    x = np.array([[-2.0, 0.0, 1.0, 3.0]], np.float32)
    for name in sorted(set(activations.__all__) - {"derivative", "value_and_derivative"}):
        yield getattr(activations, name), {"x": x}
    for function in (nn.mlp, nn.actor, nn.policy, nn.cnn, nn.resnet, nn.rnn, nn.gain, dr.data.adding, dr.data.split):
        yield function, {}


@pytest.mark.parametrize(("function", "arrays"), list(functions()), ids=lambda value: getattr(value, "__name__", ""))
def test_functions_take_what_they_are_given_or_refuse_it_by_name(
    function: Callable[..., object], arrays: dict[str, Any]
) -> None:
    for name in inspect.signature(function).parameters:
        for value in VALUES if name not in arrays else ():
            refusal(function, name, {**NEEDED.get(function.__name__, {}), **arrays, name: value})


FIT = [name for name in inspect.signature(dr.Coordinator.fit).parameters if name not in ("self", "data")]


@pytest.mark.parametrize("name", FIT)
def test_fit_takes_what_it_is_given_or_refuses_it_by_name(name: str, serial: dr.Coordinator) -> None:
    x, y = np.ones((4, 2), np.float32), np.array([0, 1, 0, 1])
    for value in VALUES:
        if name == "on_progress" and callable(value):
            continue
        arguments: dict[str, Any] = {"data": (x, y), "optimizer": optim.SGD(), "epochs": 1, "batch_size": 4}
        refusal(serial.fit, name, {"model": nn.Sequential(nn.Dense(2)), **arguments, name: value})


@pytest.mark.parametrize("model", [nn.Dense(2), [nn.Dense(2)], None, "mlp:4", nn.Sequential], ids=repr)
def test_what_is_no_model_is_refused(model: Any, serial: dr.Coordinator) -> None:
    x, y = np.ones((4, 2), np.float32), np.array([0, 1, 0, 1])
    calls: list[Callable[[], object]] = [
        lambda: serial.fit(model, (x, y), optim.SGD(), epochs=1, batch_size=4),
        lambda: serial.evaluate(model, (x, y)),
        lambda: serial.gradients(model, (x, y)),
        lambda: serial.forward(model, x),
        lambda: serial.activations(model, x),
        lambda: dr.analysis.dead_units(serial, model, x),
        lambda: dr.analysis.gradient_flow(serial, model, (x, y)),
        lambda: dr.analysis.compact(serial, model, x),
        lambda: nn.lsuv(model, x),
        lambda: nn.summary(model),
        lambda: dr.save_model(model, "nowhere.safetensors"),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"model=.*: expected an object of type Sequential"):
            call()


@pytest.mark.parametrize("coordinator", [None, 2, "local", dr.Coordinator], ids=repr)
def test_what_is_no_coordinator_is_refused(coordinator: Any) -> None:
    x, y = np.ones((4, 2), np.float32), np.array([0, 1, 0, 1])
    model, data = nn.Sequential(nn.Dense(2)).build((2,)).initialize(0), dr.Dataset(x, y)
    split, once = dr.data.Split(data, data), partial(dr.analysis.watched_course, epochs=1, batch_size=4)
    calls: list[Callable[[], object]] = [
        lambda: dr.analysis.activation_statistics(coordinator, model, x),
        lambda: dr.analysis.dead_units(coordinator, model, x),
        lambda: dr.analysis.compact(coordinator, model, x),
        lambda: dr.analysis.gradient_flow(coordinator, model, data),
        lambda: dr.analysis.gradient_through_time(coordinator, model, data),
        lambda: once(coordinator, model, split, optim.SGD(), watch=dr.Watch()),
        lambda: rl.train(coordinator, "CartPole-v1", steps=1),
        lambda: rl.evaluate(coordinator, model, "CartPole-v1"),
        *([lambda: dr.DistributedReLU(2, coordinator)] if coordinator is not None else []),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"coordinator=.*: expected an object of type Coordinator"):
            call()


def test_what_is_no_environment_is_refused(serial: dr.Coordinator) -> None:
    wrong: Any = 5
    with pytest.raises(TypeError, match=r"env=.*: returned ReLU\(\); expected an environment of gymnasium"):
        rl.policy_for(nn.ReLU)
    for call in (lambda: rl.policy_for(wrong), lambda: rl.train(serial, wrong, steps=1)):
        with pytest.raises(TypeError, match="env=5: expected a name that gymnasium knows, or a function"):
            call()


def test_a_model_is_built_before_it_is_initialized(serial: dr.Coordinator) -> None:
    with pytest.raises(ValueError, match=r"was not built yet.*build it first"):
        nn.Sequential(nn.Dense(3)).initialize(1)


def test_saved_models_hold_whole_numbers_of_python(tmp_path: Any) -> None:
    four: Any = np.int64(4)
    model = nn.Sequential(
        nn.Reshape([four, four, 1]),
        nn.Conv2d(four, (four, four)),
        nn.PReLU(four),
        nn.Flatten(),
        nn.Dense(four),
    )
    model.build((four * four,)).initialize(four)
    dr.save_model(model, tmp_path / "model.safetensors")
    assert dr.load_model(tmp_path / "model.safetensors").sha256() == model.sha256()


@pytest.mark.parametrize(
    ("x", "channels"),
    [([1.0], None), ([["a"]], None), ([[]], None), ([[np.nan]], None), ([[1.0, 2.0]], "a"), ([[1.0, 2.0, 3.0]], 2)],
)
def test_standardizing_refuses_what_is_no_batch_of_samples(x: Any, channels: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"\bx\b|channels="):
        nn.standardized(nn.Sequential(nn.Dense(2)), x, channels)
    with pytest.raises(TypeError, match="model=3: expected an object of type Sequential"):
        nn.standardized(3, [[1.0]])  # type: ignore[arg-type]
