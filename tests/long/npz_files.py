"""Damaged .npz files, whose checksums tell."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

import dist_relu as dr
from tests.long.data_files import Content, arrays, content_of, mutate
from tests.long.harness import check_refused

Files = tuple[Path, list[tuple[bytes, Content | None]]]


def prepare(folder: Path) -> Files:
    """Files with what they hold, which is None where they are packed in ways that are refused."""
    path, files = folder / "data.npz", []
    for seed in range(20):
        stream = io.BytesIO()
        (np.savez_compressed if seed % 2 else np.savez)(stream, **arrays(seed))  # type: ignore[arg-type]
        path.write_bytes(stream.getvalue())
        content: Content | None = content_of(dr.data.load(path))
        if seed % 7 == 3:
            stream, content = _repacked(stream), None
        files.append((stream.getvalue(), content))
    return path, files


def _repacked(archive: io.BytesIO) -> io.BytesIO:
    stream = io.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(stream, "w", zipfile.ZIP_LZMA) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return stream


def attempt(files: Files, rng: np.random.Generator) -> None:
    path, contents = files
    whole, content = contents[int(rng.integers(len(contents)))]
    path.write_bytes(mutate(rng, whole))
    data = check_refused(lambda: dr.data.load(path), dr.DataError)
    assert data is None or content_of(data) == content
