"""Ten thousand damaged data files of each kind: each is refused with `DataError`, or read as what it holds."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import dist_relu as dr
from dist_relu.data import load_samples
from tests.long.mutations import NUM_MUTATIONS, Allowance, mutated
from tests.twin import Array

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}

pytestmark = pytest.mark.filterwarnings("ignore::dist_relu.DataWarning")


def idx(array: Array, kind: str) -> bytes:
    start = bytes([0, 0, CODES[kind], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return start + array.astype(f">{kind}").tobytes()


def idx_files(seed: int, pack: Callable[[bytes], bytes]) -> dict[str, bytes]:
    rng = np.random.default_rng(seed)
    image_kind, label_kind = [("u1", "u1"), ("f4", "i4"), ("u1", "f8"), ("f8", "i2")][seed % 4]
    files = {}
    for part, number in (("train", 12), ("t10k", 5)):
        images = rng.integers(0, 256, (number, 5, 4)) if image_kind == "u1" else rng.random((number, 5, 4))
        files[f"{part}-images-idx3-ubyte"] = pack(idx(images, image_kind))
        files[f"{part}-labels-idx1-ubyte"] = pack(idx(rng.integers(0, 3, number), label_kind))
    return files


def bytes_of(split: dr.data.Split) -> list[tuple[str, tuple[int, ...], bytes]]:
    return [(a.dtype.str, a.shape, a.tobytes()) for part in split for a in (part.x, part.y)]


def mutations(seed: int) -> Iterator[tuple[int, np.random.Generator]]:
    for number in range(NUM_MUTATIONS):
        yield number, np.random.default_rng([seed, number])


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_idx_files(packed: bool, tmp_path: Path) -> None:
    def pack(content: bytes) -> bytes:
        return gzip.compress(content, 1 + len(content) % 9, mtime=0) if packed else content

    sets = [idx_files(seed, pack) for seed in range(8)]
    whole = []
    for files in sets:
        write(tmp_path, files)
        whole.append(bytes_of(dr.data.load(tmp_path)))
    allowance, outcomes = Allowance(), Counter[str]()

    def read(which: int) -> None:
        data = loaded(tmp_path)
        outcomes[type(data).__name__] += 1
        if isinstance(data, dr.DataError):
            return
        if packed:
            assert bytes_of(data) == whole[which]
        for part in data:
            assert 0 <= part.x.min() <= part.x.max() <= 1
            assert len(part.x) == len(part.y)

    for number, rng in mutations(1):
        which = number % len(sets)
        write(tmp_path, sets[which])
        name = list(sets[which])[int(rng.integers(4))]
        (tmp_path / name).write_bytes(mutated(sets[which][name], rng))
        allowance.check(lambda which=which: read(which))  # type: ignore[misc]
    check(outcomes)


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def loaded(path: Path) -> dr.data.Split | dr.DataError:
    try:
        return dr.data.load(path)
    except dr.DataError as error:
        return error


def check(outcomes: Counter[str]) -> None:
    """Both happened often: files that were refused, and files that could be read."""
    assert sum(outcomes.values()) == NUM_MUTATIONS
    assert min(outcomes.values()) > NUM_MUTATIONS / 100
    assert len(outcomes) == 2


def arrays(seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    x = [
        rng.standard_normal((9, 4)),
        rng.integers(0, 256, (9, 4, 3), np.uint8),
        np.asfortranarray(rng.standard_normal((9, 4)).astype(">f4")),
        rng.integers(-5, 5, (9, 2, 2, 1)),
    ][seed % 4]
    y = rng.integers(0, 3, 9) if seed % 3 else rng.standard_normal(9)
    test = {"x_test": x[:4], "y_test": y[:4]} if seed % 2 else {}
    more = {"names": np.array([None, "a"], object)} if seed % 5 == 0 else {}
    return {"x": x, "y": y, **test, **more}


def npz(seed: int) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if seed % 2 else np.savez)(stream, **arrays(seed))  # type: ignore[arg-type]
    if seed % 7 == 3:
        other = io.BytesIO()
        with zipfile.ZipFile(stream) as source, zipfile.ZipFile(other, "w", zipfile.ZIP_LZMA) as target:
            for name in source.namelist():
                target.writestr(name, source.read(name))
        return other.getvalue()
    return stream.getvalue()


def test_npz_files(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    contents = [npz(seed) for seed in range(20)]
    whole: list[object] = []
    for content in contents:
        path.write_bytes(content)
        data = loaded(path)
        whole.append(None if isinstance(data, dr.DataError) else bytes_of(data))
    assert sum(each is None for each in whole) == 3
    allowance, outcomes = Allowance(), Counter[str]()

    def read(which: int) -> None:
        data = loaded(path)
        outcomes[type(data).__name__] += 1
        if isinstance(data, dr.DataError):
            assert str(path) in str(data)
        else:
            assert bytes_of(data) == whole[which]

    for number, rng in mutations(2):
        which = number % len(contents)
        path.write_bytes(mutated(contents[which], rng))
        allowance.check(lambda which=which: read(which))  # type: ignore[misc]
    check(outcomes)


def test_npy_files(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    contents = []
    for seed in range(8):
        stream = io.BytesIO()
        np.save(stream, arrays(seed)["x"])
        contents.append(stream.getvalue())
    allowance, outcomes = Allowance(), Counter[str]()

    def read() -> None:
        try:
            x = load_samples(path)
        except dr.DataError:
            outcomes["refused"] += 1
            return
        outcomes["read"] += 1
        assert np.isfinite(x).all()
        assert x.nbytes <= 8 * path.stat().st_size

    for number, rng in mutations(3):
        path.write_bytes(mutated(contents[number % len(contents)], rng))
        allowance.check(read)
    check(outcomes)
