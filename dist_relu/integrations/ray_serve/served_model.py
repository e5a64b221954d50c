"""The model that is served: that of a file or of a folder's newest checkpoint, and whether there is a newer one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from dist_relu.checkpoint import load_model
from dist_relu.core.arrays import Array
from dist_relu.engine.inference import BLOCK_ROWS
from dist_relu.errors import CheckpointError
from dist_relu.nn import PlainPass, Sequential
from dist_relu.run.checkpoints import checkpoint_files

_Stamp = tuple[str, int, int, int]
"""What tells one content of a file from another: name, inode, size, and when it was written."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class ServedModel:
    """A model whose parameters don't change any more.  version: the digest of its parameters."""

    model: Sequential
    version: str

    @classmethod
    def load(cls, path: Path) -> ServedModel:
        """Load it, and compile what it takes to compute.  Raises `CheckpointError`."""
        model = load_model(path)
        served = cls(model=model, version=model.sha256())
        served.outputs(np.zeros((1, *model.input_shape), model.dtype))
        return served

    def outputs(self, x: Array) -> Array:
        """Compute the outputs (N, *output_shape) for samples x (N, *input_shape), as `Coordinator.forward` does.

        Those of a row depend on no other row: each element of a product is a sum in an order of its own
        (`dist_relu/kernels/products.py`), and outside of training nothing is computed over a batch.
        """
        x, run = np.ascontiguousarray(x, self.model.dtype), PlainPass(training=False)
        results = np.empty((len(x), *self.model.output_shape), self.model.dtype)
        for start in range(0, len(x), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            results[rows] = self.model.forward(x[rows], run)
        return results


@final
class ModelSource:
    """A model file, or a folder of a run's checkpoints, of which the newest whole one counts.

    current: what is served now.  Raises `CheckpointError` where there is nothing to serve.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._step = -1
        self._stamp: _Stamp | None = None
        self._refused: set[_Stamp] = set()
        self._changing: set[_Stamp] = set()
        newest, refused = self._newest(settled=False)
        if newest is None:
            raise CheckpointError(" ".join(refused) or f"{path} holds neither a model nor a checkpoint of a run.")
        self.current = newest

    def refresh(self) -> tuple[bool, Sequence[str]]:
        """Serve what is newer, if there is any: whether there was, and what is wrong with files that are passed over.

        A file is read when it is as it was at the last call: one that is being copied may lose its end meanwhile, and
        whoever has it mapped would die of that. What is refused is so until it changes.
        """
        newest, refused = self._newest(settled=True)
        if newest is not None:
            self.current = newest
        return newest is not None, refused

    def _newest(self, *, settled: bool) -> tuple[ServedModel | None, list[str]]:
        refused, changing = [], set()
        found = None
        for step, path in self._candidates():
            stamp = _stamp(path)
            if stamp == self._stamp and stamp is not None:
                break
            if stamp is None or stamp in self._refused:
                continue
            if settled and stamp not in self._changing:
                changing.add(stamp)
                break
            try:
                found = self._checked(path, ServedModel.load(path))
            except CheckpointError as error:
                self._refused.add(stamp)
                refused.append(str(error))
                continue
            self._step, self._stamp = step, stamp
            break
        self._changing = changing
        return found, refused

    def _candidates(self) -> list[tuple[int, Path]]:
        """List the files that may be newer than the present one, the newest first, with the steps of checkpoints."""
        if not self._path.is_dir():
            return [(0, self._path)]
        return [(step, path) for step, path in reversed(checkpoint_files(self._path)) if step >= self._step]

    def _checked(self, path: Path, newer: ServedModel) -> ServedModel:
        """Return it, if it is a newer state of the same model.  Raises `CheckpointError`."""
        if self._stamp is not None and _kind(newer.model) != _kind(self.current.model):
            raise CheckpointError(
                f"{path} has another model: {_kind(newer.model)} where {_kind(self.current.model)} is served. Start a "
                "server of its own for it."
            )
        return newer


def _kind(model: Sequential) -> str:
    """Say what who asks for predictions must know of a model."""
    outputs = f"{model.predicts or 'outputs'} of shape {model.output_shape}"
    names = f" ({', '.join(model.classes)})" if model.classes else ""
    return f"{model.dtype} samples of shape {model.input_shape}, {outputs}{names}"


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return str(path), status.st_ino, status.st_size, status.st_mtime_ns
