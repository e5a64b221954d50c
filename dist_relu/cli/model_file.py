"""Models from Python files of the user's, as in `--model file.py:function`."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import cloudpickle
import numpy as np

from dist_relu.nn import Sequential


def model_from_file(path: Path, name: str, dtype: str | None = None) -> Sequential:
    """The model that a function in a Python file returns; it is called without arguments.

    dtype: to compute in, by default that of the model. One that has parameters already, or says itself that it is of
    float64, must be of this dtype.
    Raises ValueError, which names file, function and line, for whatever goes wrong in there.
    """
    where = f"--model {path}:{name}"
    if not path.is_file():
        raise ValueError(f"{where}: there is no file {path}.")
    with _told(where, path):
        module = _run(path)
        function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{where}: {path} has no function {name}.")
    with _told(where, path):
        needed = _needed_arguments(function)
    if needed:
        raise ValueError(f"{where}: the function must be callable without arguments, not with {needed}.")
    with _told(where, path):
        model = function()
    if not isinstance(model, Sequential):
        raise ValueError(f"{where}: returned {type(model).__name__}; expected an nn.Sequential.")
    if dtype is None or model.dtype == dtype:
        return model
    if model.has_values or model.dtype != np.float32:
        raise ValueError(
            f"{where}: the model is of {model.dtype}, not of {dtype}. Pass --dtype {model.dtype}, or leave it out."
        )
    return Sequential(*model.blueprint().layers, dtype=dtype)


def _run(path: Path) -> ModuleType:
    """The module in a file, under a name that no other module has: that of the file, with its ending.

    What is defined in it goes to workers by value, since they can't import it. Nothing is kept in __pycache__.
    """
    module = ModuleType(path.name)
    module.__file__ = str(path.absolute())
    code = compile(path.read_bytes(), module.__file__, "exec", dont_inherit=True)
    sys.modules[path.name] = module
    cloudpickle.register_pickle_by_value(module)
    exec(code, vars(module))
    return module


def _needed_arguments(function: Callable[..., object]) -> list[str]:
    return [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


@contextmanager
def _told(where: str, path: Path) -> Iterator[None]:
    """Raise ValueError for whatever the user's code raises, also when it wants to exit."""
    try:
        yield
    except (Exception, SystemExit) as error:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(path.absolute())
        ]
        place = f" (line {lines[-1]})" if lines else ""
        raise ValueError(f"{where}: {_words(error)}{place}.") from error


def _words(error: BaseException) -> str:
    """A line of what was raised; syntax errors say themselves where they are."""
    if isinstance(error, SystemExit):
        return f"it exits with {error.code!r} instead of returning a model"
    message = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
