"""Damaged .npy files of samples, which have no digest."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

import dist_relu as dr
from dist_relu.data import load_samples
from tests.long.data_files import arrays, mutate
from tests.long.harness import check_refused

Files = tuple[Path, list[bytes]]


def prepare(folder: Path) -> Files:
    contents = []
    for seed in range(8):
        stream = io.BytesIO()
        np.save(stream, arrays(seed)["x"])
        contents.append(stream.getvalue())
    return folder / "x.npy", contents


def attempt(files: Files, rng: np.random.Generator) -> None:
    path, contents = files
    path.write_bytes(mutate(rng, contents[int(rng.integers(len(contents)))]))
    x = check_refused(lambda: load_samples(path), dr.DataError)
    if x is not None:
        assert np.isfinite(x).all()
        assert x.nbytes <= 8 * path.stat().st_size
