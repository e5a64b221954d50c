"""Policies as functions of plain NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dist_relu.core.checks import check_is
from dist_relu.engine.arguments import check_has_parameters
from dist_relu.export.numpy_module import numpy_source_with
from dist_relu.nn import Categorical, Sequential, TanhGaussian
from dist_relu.rl.environments import head_of

_COMMON = '''
def _outputs(state):
    """What the distribution of actions is made of, for a state ({states}), or for states (N, {states})."""
    state = np.asarray(state)
    one = state.ndim == {state_ndim}
    outputs = forward(state[None] if one else state)[:, :-1]
    return outputs[0] if one else outputs

'''

_SOFTMAX = '''
def act(state):
    """The number of the likeliest action, for a state ({states}); or of each, for states (N, {states})."""
    return _outputs(state).argmax(axis=-1)


def probabilities(state):
    """The probabilities of the {actions} actions: ({actions},), or (N, {actions})."""
    return np.exp(_outputs(state))

'''

_TANH_GAUSSIAN = '''
LOW, HIGH = np.array({low}), np.array({high})


def act(state):
    """The action ({actions},), for a state ({states}); or (N, {actions}), for states (N, {states})."""
    return action_of(distribution(state)[0])


def distribution(state):
    """Mean and standard deviation of the normal distribution that `action_of` makes actions of."""
    mean, log_std = np.split(_outputs(state), 2, axis=-1)
    return mean, np.exp(log_std)


def action_of(u):
    """tanh(u), stretched to the bounds of the environment."""
    return (LOW + (np.tanh(np.asarray(u, float)) + 1) / 2 * (HIGH - LOW)).astype(np.float32)

'''


def source(model: Sequential, about: str = "A policy of dist_relu") -> str:
    """The source of a Python module with the policy's weights in it: act(state), and what actions are drawn from.

    It is the module of `dist_relu.export.numpy_source`, with these functions: it computes what `model` does, but with
    the matrix products of NumPy, whose last digits may differ.
    Raises ValueError for models that are no policies, or have layers of the user's own.
    """
    check_has_parameters(model)
    check_is("about", about, str)
    head = head_of(model)
    names: dict[str, Any] = {
        "states": ", ".join(map(str, model.input_shape)),
        "state_ndim": len(model.input_shape),
        "actions": head.action_width,
    }
    if isinstance(head, TanhGaussian):
        code = _COMMON + _TANH_GAUSSIAN
        names |= {"low": list(head.low), "high": list(head.high)}
    else:
        assert isinstance(head, Categorical)
        code = _COMMON + _SOFTMAX
        names["actions"] = head.actions
    return numpy_source_with(model, f"{about}: act(state) is its likeliest action", code.format(**names))


def numpy_policy(model: Sequential) -> Callable[[Any], Any]:
    """`act` of the module that `source` gives: from a state (D,) to an action, or from (N, D) to N actions."""
    module: dict[str, Any] = {}
    exec(source(model), module)
    act: Callable[[Any], Any] = module["act"]
    return act
