"""How this process connects to Ray, and what Ray's own errors say."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dist_relu.errors import BackendError, UnsuitableBackend


def import_ray() -> Any:
    """Import the module `ray`.  Raises BackendError when it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise UnsuitableBackend(
            f"The Ray backend needs Ray ({error}). Install it: pip install 'dist_relu[ray]'."
        ) from None
    return ray


def init(where: str, **options: Any) -> Any:
    """Connect, quietly.  Raises BackendError that says what to do."""
    ray = import_ray()
    try:
        with quietly():
            return ray.init(logging_level=logging.ERROR, **options)
    except BaseException as error:
        disconnect()
        if not isinstance(error, Exception):
            raise
        raise BackendError(explain(where, error)) from error


def explain(where: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    if is_about_token(error):
        return (
            f"The Ray cluster at {where} refuses this process's token, or has one and this process has none. "
            "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file with the token (by default "
            f"~/.ray/auth_token), as they were for `ray start`; or RAY_AUTH_MODE=disabled for both. Ray says: {text}"
        )
    return f"Can't join the Ray cluster at {where}. Ray says: {text}"


def is_about_token(error: Exception) -> bool:
    causes = " ".join([str(error), str(error.__cause__ or ""), type(error).__name__])
    return any(word in causes for word in ("Auth", "authenticat", "token"))


def disconnect() -> None:
    """End the connection, and let Ray look again at the environment and the home folder when it next connects."""
    import_ray().shutdown()
    read_settings()


def read_settings() -> None:
    """Let Ray read what the environment and the home folder say now; it has read them when it was imported."""
    core: Any = importlib.import_module("ray._raylet")
    if hasattr(core, "AuthenticationTokenLoader"):  # since 2.52
        core.Config.initialize("")
        core.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def environment(variables: Mapping[str, str], without: Iterable[str] = ()) -> Iterator[None]:
    """Set environment variables meanwhile, and unset others; undo whatever Ray sets."""
    before = dict(os.environ)
    os.environ.update(variables)
    for name in without:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def quietly() -> Iterator[None]:
    """Let Ray start without warnings, and keep the user's handler of SIGTERM, which Ray would replace."""
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # Ray announces its plans to its users; ours can't act
            yield
    finally:
        if is_main and handler is not None:
            signal.signal(signal.SIGTERM, handler)
