"""What rules are called with by users, checked: kernels trust the lengths and dtypes of vectors.  n: their length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.guards import is_ours
from dist_relu.kernels.ordered_sum import BLOCK
from dist_relu.partition import PartialSums, stack_depth

Method = Callable[..., None]


def update(kind: type, method: Method, rule: Any, gradient: Any, old: Any, new: Any, hyper: Any) -> None:
    """Call `ElementwiseOptimizer.update`, with arguments that were checked."""
    if is_ours(kind):
        params = _check_vectors(rule, old, new, hyper)
        _check_partial_sums(gradient, params)
    method(rule, gradient, old, new, hyper)


def direct(
    kind: type, method: Method, rule: Any, gradient: Any, old: Any, new: Any, hyper: Any, **options: Any
) -> None:
    """Call `LayerwiseOptimizer.direct`, with arguments that were checked."""
    if is_ours(kind):
        _check_like("gradient", gradient, _check_vectors(rule, old, new, hyper))
    method(rule, gradient, old, new, hyper, **options)


def take(kind: type, method: Method, rule: Any, direction: Any, old: Any, new: Any, hyper: Any, norms: Any) -> None:
    """Call `LayerwiseOptimizer.take`, with arguments that were checked."""
    if is_ours(kind):
        _check_like("direction", direction, _check_vectors(rule, old, new, hyper))
    method(rule, direction, old, new, hyper, norms)


def _check_vectors(rule: Any, old: Sequence[Any], new: Sequence[Any], hyper: Any) -> Array:
    """Raise ValueError unless parameters and states are vectors like the first one, which is returned."""
    num_vectors = 1 + rule.num_states
    if len(old) < num_vectors or len(new) < num_vectors:
        raise ValueError(
            f"{type(rule).__name__}: old has {len(old)} vectors and new has {len(new)}; expected {num_vectors}: the "
            "parameters, and then the states."
        )
    params: Array = old[0]
    if not isinstance(params, np.ndarray) or params.ndim != 1 or params.dtype not in (np.float32, np.float64):
        raise ValueError(f"{type(rule).__name__}: the parameters must be a vector of float32 or float64.")
    for name, vectors in (("old", old), ("new", new)):
        for number, vector in enumerate(vectors[:num_vectors]):
            _check_like(f"{name}[{number}]", vector, params)
    num_hyper = len(rule.hyper(0, 0.0))
    if not isinstance(hyper, np.ndarray) or hyper.shape != (num_hyper,) or hyper.dtype != params.dtype:
        raise ValueError(f"{type(rule).__name__}: hyper must be what hyper() returns, as an array of {params.dtype}.")
    return params


def _check_like(name: str, vector: Any, params: Array) -> None:
    is_like = isinstance(vector, np.ndarray) and vector.shape == params.shape and vector.dtype == params.dtype
    if not is_like or not vector.flags.carray:
        what = f"{vector.dtype} of shape {vector.shape}" if isinstance(vector, np.ndarray) else f"{vector!r}"
        raise ValueError(
            f"{name} is {what}; expected {params.dtype} of shape {params.shape}, as the parameters, in one piece."
        )


def _check_partial_sums(gradient: Any, params: Array) -> None:
    """Raise ValueError unless all that `kernels.ordered_sum` reads and writes is there."""
    rows, first, carries, stack = PartialSums(*gradient)
    for name, array in (("rows", rows), ("stack", stack)):
        if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype != params.dtype:
            raise ValueError(f"gradient.{name} must be an array of {params.dtype} with two dimensions.")
        if not array.flags.carray:
            raise ValueError(f"gradient.{name} must lie in one piece that may be written to.")
    if not 0 <= first <= rows.shape[1] - len(params):
        raise ValueError(
            f"gradient.rows has shape {rows.shape}; expected {len(params)} columns from number {first} on."
        )
    if not isinstance(carries, np.ndarray) or carries.dtype != np.int64 or carries.shape != rows.shape[:1]:
        raise ValueError(f"gradient.carries must be {len(rows)} numbers of type int64, one for each row.")
    pushed = np.arange(1, len(rows) + 1)
    if (carries < 0).any() or (pushed - np.cumsum(carries) < 1).any():
        raise ValueError(f"gradient.carries adds more rows than there are: {carries.tolist()}.")
    depth = stack_depth(carries.tolist())
    width = min(len(params), BLOCK)
    if len(stack) < depth or stack.shape[1] < width:
        raise ValueError(f"gradient.stack has shape {stack.shape}; expected at least ({depth}, {width}).")
