"""From parameters as scikit-learn's MLPs have them to models, update rules and workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from dist_relu import nn
from dist_relu.coordinator import Coordinator, start
from dist_relu.core import machine
from dist_relu.core.checks import check_choice, check_int, check_ints, check_is, shown
from dist_relu.optim import SGD, Adam, AdamW, Group, Groups, Optimizer

Model = nn.Sequential | Callable[[int], nn.Sequential]

_ACTIVATIONS: dict[str, type[nn.Layer] | None] = {
    "identity": None,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
}
_SYMMETRIC = ("identity", "logistic", "tanh")
"""For which initial weights are those of Glorot and Bengio (2010), and not of He et al. (2015)."""


def multilayer_perceptron(
    hidden: int | Iterable[int], activation: str, outputs: int, dtype: np.dtype[Any]
) -> nn.Sequential:
    """Make a network of dense layers; with "relu" it is `nn.mlp`."""
    sizes = check_ints("hidden_layer_sizes", list(hidden) if isinstance(hidden, Iterable) else [hidden])
    act = _ACTIVATIONS[check_choice("activation", activation, _ACTIVATIONS)]
    init = nn.GlorotUniform() if activation in _SYMMETRIC else nn.HeNormal()
    layers: list[nn.Layer] = []
    for units in sizes:
        layers += [nn.Dense(units, init=init), *([act()] if act else [])]
    return nn.Sequential(*layers, nn.Dense(outputs, init=init), dtype=dtype)


def network_of(model: Model, outputs: int) -> nn.Sequential:
    """Take the user's network without its parameters, or ask their function for one with so many outputs."""
    if not isinstance(model, nn.Sequential):
        if not callable(model):
            raise TypeError(
                f"{shown('model', model)}: expected an nn.Sequential, or a function of the number of outputs that "
                "returns one."
            )
        model = check_is("model(outputs)", model(outputs), nn.Sequential)
    return model.blueprint()


def workers_for(n_workers: int, backend: str | None, shards: int) -> Coordinator:
    """Start workers, at most one for each shard, for more would have nothing to do.  n_workers: -1 for all cores.

    backend: by default this process for one worker, and others of this machine for several.
    """
    if n_workers == -1:
        if backend in ("ray", "mpi"):
            return start(f"1:{shards}" if backend == "ray" else None, backend=backend)
        n_workers = machine.num_cores()
    workers = min(check_int("n_workers", n_workers), shards)
    if backend is None:
        backend = "serial" if workers == 1 else "local"
    return start(None if backend in ("serial", "mpi") else workers, backend=backend)


def optimizer_for(
    solver: str | Optimizer,
    *,
    lr: float,
    decay: float,
    adamw_decay: float,
    momentum: float,
    nesterov: bool,
    betas: tuple[float, float],
    epsilon: float,
    loss_scale: float,
    has_biases: bool,
) -> Optimizer:
    """Make the update rule that takes scikit-learn's steps; a rule that was passed stays as it is.

    decay: the factor of half the squared parameters in scikit-learn's loss, of which ours is `loss_scale` times.
    """
    if isinstance(solver, Optimizer):
        return solver
    beta1, beta2 = betas
    rule: Optimizer
    match check_choice("solver", solver, ("adam", "adamw", "sgd", "lbfgs")):
        case "adam":
            rule = Adam(lr, beta1, beta2, epsilon, weight_decay=decay * loss_scale)
        case "adamw":
            rule = AdamW(lr, beta1, beta2, epsilon, weight_decay=adamw_decay)
        case _:
            rule = SGD(
                lr / loss_scale,
                momentum=momentum,
                nesterov=nesterov and momentum > 0,
                weight_decay=decay * loss_scale,
            )
    return Groups(rule, [Group("biases", weight_decay=0.0)]) if has_biases and decay else rule
