"""What a function finds around it in a worker: the same as in the user's process.

With every task goes how things stand there: the command line, the working folder, where modules are looked for, and
which of the user's own modules have been loaded, how often, and from what text. A worker applies it before it unpickles
the task. Modules that only the user's process has, because they were made there, travel by value.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import secrets
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, final

import cloudpickle

from dist_relu.errors import BackendError

_THIS_PROCESS = secrets.token_hex(8)
_NOT_THE_USERS = sys.stdlib_module_names | {"dist_relu", "__main__"}
_LIBRARIES = ("/site-packages/", "/dist-packages/")


@dataclass(frozen=True)
class Source:
    """Says what a module was loaded from: its file, and the digest of the text.  version: grows with each reload."""

    path: str
    version: int
    digest: str


@dataclass(frozen=True)
class Surroundings:
    """Tells how things stand in the user's process.  folder: None when it was removed.  sources: by name of module."""

    process: str
    arguments: list[str]
    folder: str | None
    paths: list[str]
    sources: dict[str, Source]


def import_paths() -> list[str]:
    """Return where Python looks for modules.  What else is in `sys.path`, such as Path objects, Python passes over."""
    return [path for path in sys.path if isinstance(path, str)]


def capture() -> Surroundings:
    """Note how things stand in this process, the user's."""
    with _tracker_lock:
        return _tracker.capture()


def apply(surroundings: Surroundings) -> None:
    """Let things in this process, a worker's, stand as they do in the user's, before a task is unpickled."""
    _reloader.apply(surroundings)


def check_modules() -> None:
    """Raise BackendError when modules that were imported are not those of the user's process."""
    _reloader.check()


def absolute_import_paths() -> list[str]:
    """Return the import paths for a process that may work in another folder."""
    try:
        return [os.path.abspath(path) for path in import_paths()]
    except OSError:  # the working folder has been removed, and what is relative leads nowhere
        return [path for path in import_paths() if os.path.isabs(path)]


@final
class _ModuleTracker:
    """Keeps track of the user's modules, in the user's process: which are loaded, and how often they were."""

    def __init__(self) -> None:
        self._num_modules = 0
        self._seen: set[str] = set()
        self._can_be_imported: dict[str, bool] = {}  # by name of root
        self._loaded: dict[str, tuple[ModuleType, Any]] = {}  # the user's, with their specs
        self._sources: dict[str, Source] = {}

    def capture(self) -> Surroundings:
        for name, (module, spec) in list(self._loaded.items()):
            now = sys.modules.get(name)
            if isinstance(now, ModuleType) and (now is not module or now.__spec__ is not spec):
                self._note_load(name, now)
        if len(sys.modules) != self._num_modules:
            self._num_modules = len(sys.modules)
            for name, module in reversed(list(sys.modules.items())):  # what a module imports stands behind it
                if name not in self._seen:
                    self._seen.add(name)
                    self._add(name, module)
        folder = None
        with suppress(OSError):
            folder = os.getcwd()
        return Surroundings(_THIS_PROCESS, list(sys.argv), folder, import_paths(), dict(self._sources))

    def _add(self, name: str, module: Any) -> None:
        """Begin to track a module, if it is the user's."""
        root_name = name.partition(".")[0]
        root = sys.modules.get(root_name)
        if root_name in _NOT_THE_USERS or not isinstance(module, ModuleType) or not isinstance(root, ModuleType):
            return
        path = _path_of(module)
        if path is not None and any(folder in path for folder in _LIBRARIES):
            return
        if root_name not in self._can_be_imported:
            self._can_be_imported[root_name] = _can_be_imported(root)
        if not self._can_be_imported[root_name]:
            if _has_code(module):
                with suppress(ValueError):  # it is not called by the name under which it is known
                    cloudpickle.register_pickle_by_value(module)
        elif path is not None and path.endswith(".py"):
            self._note_load(name, module)

    def _note_load(self, name: str, module: ModuleType) -> None:
        """Note that a module of the user's was loaded, perhaps again."""
        before = self._sources.pop(name, None)  # it goes behind all others: workers load them in this order
        path = _path_of(module) or ""
        self._loaded[name] = module, module.__spec__
        self._sources[name] = Source(path, before.version + 1 if before else 0, _digest(path))


@final
class _ModuleReloader:
    """Brings modules and paths of a worker's process to the state of the user's."""

    def __init__(self) -> None:
        self._applied: Surroundings | None = None
        self._versions: dict[str, int] = {}

    def apply(self, surroundings: Surroundings) -> None:
        if surroundings.process == _THIS_PROCESS or surroundings == self._applied:
            return
        self._applied = None
        sys.argv[:] = surroundings.arguments
        sys.path[:] = [*surroundings.paths, *(path for path in sys.path if path not in surroundings.paths)]
        with suppress(OSError):  # there is no such folder here
            if surroundings.folder is not None and surroundings.folder != os.getcwd():
                os.chdir(surroundings.folder)
        importlib.invalidate_caches()
        for name, source in surroundings.sources.items():
            if name in sys.modules and self._versions.get(name, source.version) != source.version:
                importlib.reload(sys.modules[name])
                del self._versions[name]
        self._applied = surroundings
        self.check()

    def check(self) -> None:
        for name, source in self._applied.sources.items() if self._applied else ():
            if name in sys.modules and name not in self._versions:
                ours = _digest(_path_of(sys.modules[name]) or "")
                if ours and source.digest and ours != source.digest:
                    raise BackendError(
                        f"Module {name!r} is another one here than in your program: {source.path} was changed after "
                        f"your program had imported it. Reload it there, importlib.reload({name}), or start it again."
                    )
                self._versions[name] = source.version


# The modules of a process are there once, whoever looks at them.
_tracker, _tracker_lock, _reloader = _ModuleTracker(), threading.Lock(), _ModuleReloader()


def _path_of(module: ModuleType) -> str | None:
    """Return the file that a module was loaded from."""
    path = getattr(module.__spec__, "origin", None) or vars(module).get("__file__")
    return path if isinstance(path, str) and os.path.isabs(path) else None


def _can_be_imported(root: ModuleType) -> bool:
    """Tell whether another process that looks in the same places would find this module, which has no parent."""
    for finder in list(sys.meta_path):
        with suppress(Exception):  # finders are anybody's
            spec = finder.find_spec(root.__name__, None)
            if spec is not None:
                path = _path_of(root)
                return path is None or spec.origin is None or os.path.realpath(path) == os.path.realpath(spec.origin)
    return False


def _has_code(module: ModuleType) -> bool:
    """Tell whether functions or methods written in Python are at home in a module."""
    for value in list(vars(module).values()):
        if getattr(value, "__module__", None) == module.__name__:
            parts = list(vars(value).values()) if isinstance(value, type) else [value]
            if any(isinstance(part, FunctionType) for part in parts):
                return True
    return False


def _digest(path: str) -> str:
    """Digest a file's content; empty when there is none, as for modules in archives."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""
