"""What the kinds of data files have in common: how numbers in them go wrong, and what was read of them."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import dist_relu as dr
from tests.long.harness import check_refused, mutate_bytes
from tests.twin import Array

_EXTREMES = (0, 1, 0x7F, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}

Content = list[tuple[str, tuple[int, ...], bytes]]


def mutate(rng: np.random.Generator, content: bytes) -> bytes:
    """Damage as of any file, or one of its numbers made extreme, or up to a million zeros behind it."""
    kind = rng.random()
    if kind < 0.05:
        return content + bytes(int(rng.integers(1, 10**6)))
    if kind < 0.3:
        size = int(rng.choice([1, 2, 4, 8]))
        at = int(rng.integers(len(content)))
        number: int = _EXTREMES[int(rng.integers(len(_EXTREMES)))] % 256**size
        return content[:at] + number.to_bytes(size, "big" if rng.random() < 0.5 else "little") + content[at + size :]
    return mutate_bytes(rng, content)


def content_of(split: dr.data.Split) -> Content:
    return [(array.dtype.str, array.shape, array.tobytes()) for part in split.parts for array in (part.x, part.y)]


@dataclass(frozen=True)
class IdxSet:
    """Four IDX files, and what is read of them."""

    files: dict[str, bytes]
    content: Content


@dataclass(frozen=True)
class IdxSets:
    folder: Path
    sets: list[IdxSet]


def make_idx_sets(folder: Path, pack: Callable[[bytes], bytes]) -> IdxSets:
    """Sets of several types; `pack` makes of the content of a file what stands on the disk."""
    sets = []
    for seed, (image_kind, label_kind) in enumerate((("u1", "u1"), ("f4", "i4"), ("u1", "f8"), ("f8", "i2"))):
        rng, files = np.random.default_rng(seed), {}
        for part, number in (("train", 12), ("t10k", 5)):
            images = rng.integers(0, 256, (number, 5, 4)) if image_kind == "u1" else rng.random((number, 5, 4))
            files[f"{part}-images-idx3-ubyte"] = pack(idx(images, image_kind))
            files[f"{part}-labels-idx1-ubyte"] = pack(idx(rng.integers(0, 3, number), label_kind))
        _write(folder, files)
        sets.append(IdxSet(files, content_of(dr.data.load(folder))))
    return IdxSets(folder, sets)


def idx(array: Array, kind: str) -> bytes:
    start = bytes([0, 0, _CODES[kind], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return start + array.astype(f">{kind}").tobytes()


def attempt_idx(sets: IdxSets, rng: np.random.Generator, *, is_told: bool) -> None:
    """Damage one of the files.  is_told: a digest in it tells."""
    one = sets.sets[int(rng.integers(len(sets.sets)))]
    name = list(one.files)[int(rng.integers(4))]
    _write(sets.folder, {**one.files, name: mutate(rng, one.files[name])})
    data = check_refused(lambda: dr.data.load(sets.folder), dr.DataError)
    if data is None:
        return
    if is_told:
        assert content_of(data) == one.content
    for part in data.parts:
        assert 0 <= part.x.min() <= part.x.max() <= 1
        assert len(part.x) == len(part.y)


def packed(content: bytes) -> bytes:
    return gzip.compress(content, 1 + len(content) % 9, mtime=0)


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def arrays(seed: int) -> dict[str, Array]:
    """What a .npz file may hold: samples of several types and orders, classes or real targets, perhaps a test part."""
    rng = np.random.default_rng(seed)
    x = [
        rng.standard_normal((9, 4)),
        rng.integers(100, 256, (9, 4, 3), np.uint8),
        np.asfortranarray(rng.standard_normal((9, 4)).astype(">f4")),
        rng.integers(-5, 5, (9, 2, 2, 1)),
    ][seed % 4]
    y = rng.integers(0, 3, 9) if seed % 3 else rng.standard_normal(9)
    test = {"x_test": x[:4], "y_test": y[:4]} if seed % 2 else {}
    more = {"names": np.array([None, "a"], object)} if seed % 5 == 0 else {}
    return {"x": x, "y": y, **test, **more}
