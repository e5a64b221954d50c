"""Policies as functions of plain NumPy."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_is
from dist_relu.engine.arguments import check_has_parameters
from dist_relu.nn import Categorical, Dense, Layer, Parallel, PolicyHead, ReLU, Sequential, TanhGaussian
from dist_relu.rl.environments import head_of

_NETWORK = '''\
"""{about}: act(state) is its likeliest action.  Needs nothing but NumPy."""

import base64

import numpy as np


def _array(text, *shape):
    return np.frombuffer(base64.b64decode(text), "{dtype}").reshape(shape)


def _network(state):
    """What the distribution of actions is made of; state: ({state_dim},), or (N, {state_dim})."""
    x = np.asarray(state, "{dtype}")
    for weight, bias in LAYERS[:-1]:
        x = np.maximum(x @ weight + bias, 0)
    weight, bias = LAYERS[-1]
    return x @ weight + bias


'''

_SOFTMAX = '''\
def act(state):
    """The number of the likeliest action, for a state ({state_dim},); or of each, for states (N, {state_dim})."""
    return _network(state).argmax(axis=-1)


def probabilities(state):
    """The probabilities of the {actions} actions: ({actions},), or (N, {actions})."""
    logits = _network(state)
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


'''

_TANH_GAUSSIAN = '''\
LOW, HIGH = np.array({low}), np.array({high})


def act(state):
    """The action ({actions},), for a state ({state_dim},); or (N, {actions}), for states (N, {state_dim})."""
    return action_of(distribution(state)[0])


def distribution(state):
    """Mean and standard deviation of the normal distribution that `action_of` makes actions of."""
    mean, log_std = np.split(_network(state), 2, axis=-1)
    return mean, np.exp(np.clip(log_std, -20, 2))


def action_of(u):
    """tanh(u), stretched to the bounds of the environment."""
    return (LOW + (np.tanh(np.asarray(u, float)) + 1) / 2 * (HIGH - LOW)).astype(np.float32)


'''


_ONLY = "Only policies with layers as those of nn.policy can be exported"


def source(model: Sequential, about: str = "A policy of dist_relu") -> str:
    """The source of a Python module with the policy's weights in it: act(state), and what actions are drawn from.

    It computes what `model` does, but with the matrix products of NumPy, whose last digits may differ.
    Raises ValueError for models that are not made by `nn.policy`.
    """
    check_has_parameters(model)
    check_is("about", about, str)
    head = head_of(model)
    dense = _dense_layers(model, head)
    names: dict[str, Any] = {
        "about": about.replace("\\", "/").replace('"', "'"),
        "dtype": f"<f{model.dtype.itemsize}",
        "state_dim": dense[0].weight.shape[0],
        "actions": head.action_width,
    }
    if isinstance(head, TanhGaussian):
        code = _NETWORK + _TANH_GAUSSIAN
        names |= {"low": list(head.low), "high": list(head.high)}
    else:
        assert isinstance(head, Categorical)
        code = _NETWORK + _SOFTMAX
        names["actions"] = head.actions
    layers = [f"    ({_array(d.weight.value)}, {_array(_offset(d))}),\n" for d in dense]
    return code.format(**names) + "LAYERS = [\n" + "".join(layers) + "]\n"


def numpy_policy(model: Sequential) -> Callable[[Any], Any]:
    """`act` of the module that `source` gives: from a state (D,) to an action, or from (N, D) to N actions."""
    module: dict[str, Any] = {}
    exec(source(model), module)
    act: Callable[[Any], Any] = module["act"]
    return act


def _dense_layers(model: Sequential, head: PolicyHead) -> Sequence[Dense]:
    """The dense layers of the policy's network, which stands beside that of the value."""
    first = model.layers[0]
    if len(model.layers) != 2 or not isinstance(first, Parallel):
        raise ValueError(f"{_ONLY}: a policy and a value network in nn.Parallel, and a head.")
    layers: Sequence[Layer] = first.branches[0]
    dense, between = layers[::2], layers[1::2]
    if not layers or not all(isinstance(d, Dense) for d in dense) or not all(isinstance(r, ReLU) for r in between):
        raise ValueError(f"{_ONLY}: Dense, with ReLU between.")
    if len(dense) != len(between) + 1:
        raise ValueError(f"{_ONLY}: the last one is Dense.")
    policy = [d for d in dense if isinstance(d, Dense)]
    if policy[-1].units != head.inputs - 1:
        raise ValueError(f"{_ONLY}: the first network has all {head.inputs - 1} outputs that {head} takes.")
    return policy


def _offset(dense: Dense) -> Array:
    return np.zeros(dense.units, dense.weight.value.dtype) if dense.offset is None else dense.offset.value


def _array(values: Array) -> str:
    little = values.astype(values.dtype.newbyteorder("<"))
    return f'_array("{b64encode(little.tobytes()).decode()}", {", ".join(map(str, values.shape))})'
