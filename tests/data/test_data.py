"""Reading data sets, and refusing what can't be trained on."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import re
import shutil
import struct
import threading
import tracemalloc
import zipfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

import dist_relu as dr
from dist_relu.data import Dataset, adding, load, load_samples, read_numpy
from dist_relu.data.numpy_files import samples_in
from dist_relu.engine.arguments import numbers
from dist_relu.errors import DataError, DataWarning
from tests.twin import Array


def gzipped(content: bytes) -> bytes:
    """The same at any time, which otherwise stands in it: names of tests are made of these."""
    return gzip.compress(content, mtime=0)


def idx(array: Array) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype("u1").tobytes()


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A folder of the form of MNIST; some files are gzipped, some are not."""
    for prefix, number in (("train", 30), ("t10k", 10)):
        images, labels = rng.integers(0, 256, (number, 5, 4)), rng.integers(0, 3, number)
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path


def test_digits_are_1797_images_in_two_parts() -> None:
    data = load("digits")
    assert (len(data.train), len(data.test)) == (1438, 359)
    assert data.train.x.dtype == np.float32
    assert (data.train.x.min(), data.train.x.max()) == (0, 1)
    assert data.train.image_shape == (8, 8, 1)
    assert not {row.tobytes() for row in data.train.x} & {row.tobytes() for row in data.test.x}


def test_a_folder_of_idx_files_is_read(folder: Path) -> None:
    data = load(folder)
    assert data.train.x.shape == (30, 20)
    assert data.test.y.shape == (10,)
    assert data.train.image_shape == (5, 4, 1)
    raw = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())
    assert data.train.x[0, 0] == pytest.approx(raw[16] / 255)


def test_mnist_is_found_by_its_name(mnist_folder: Path) -> None:
    data = load("mnist")
    assert (data.train.x.shape, data.test.x.shape) == ((60000, 784), (10000, 784))
    assert np.bincount(data.test.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an IDX file: it begins with nothing"),
        (b"hello world", "is not an IDX file"),
        (b"\0\0\x08\x03\0\0", "is truncated: 6 bytes, not even its header"),
        (idx(np.zeros((30, 5, 4)))[:-1], r"is truncated: 615 bytes; its header, shape \(30, 5, 4\), announces 616"),
        (idx(np.zeros((30, 5, 4))) + b"x", "is too long"),
        (gzipped(idx(np.zeros((30, 5, 4))))[:-9], "can't be read"),
        (b"\x1f\x8bnonsense", "can't be read"),
        (idx(np.zeros((30, 5))), "expected \\(N, height, width\\)"),
    ],
)
def test_idx_files_that_are_not_whole_are_refused(folder: Path, content: bytes, message: str) -> None:
    (folder / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(folder)


def typed_idx(array: Array, code: int) -> bytes:
    """An IDX file of a type of its own; the array is big-endian."""
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_images_of_floats_stay_as_they_are_and_those_without_a_scale_are_refused(folder: Path) -> None:
    (folder / "train-images-idx3-ubyte.gz").unlink()
    images = folder / "train-images-idx3-ubyte"
    shades = np.linspace(0, 1, 600).reshape(30, 5, 4)
    for code, dtype in ((0x0D, ">f4"), (0x0E, ">f8")):
        images.write_bytes(typed_idx(shades.astype(dtype), code))
        np.testing.assert_array_equal(load(folder).train.x, shades.reshape(30, 20).astype(dtype))
    for code, array, message in (
        (0x0D, (shades * 2).astype(">f4"), "images of float32 from 0 to 2; expected bytes, or floats in"),
        (0x0D, (shades * np.nan).astype(">f4"), r"\[0, 0, 0\] is nan"),
        (0x09, shades.astype(">i1"), "images of int8, whose scale nothing tells"),
        (0x0B, (shades * 4095).astype(">i2"), "images of int16, whose scale nothing tells"),
        (0x0C, shades.astype(">i4"), "images of int32"),
    ):
        images.write_bytes(typed_idx(array, code))
        with pytest.raises(DataError, match=message), np.errstate(invalid="ignore"):
            load(folder)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("wrong", [0.5, np.nan, np.inf, -np.inf, 1e300])
def test_labels_are_whole_numbers_of_whatever_type(folder: Path, wrong: float) -> None:
    labels = np.arange(30) % 3.0
    path = folder / "train-labels-idx1-ubyte"
    path.write_bytes(typed_idx(labels.astype(">f8"), 0x0E))
    assert load(folder).train.y.tolist() == labels.tolist()
    labels[7] = wrong
    path.write_bytes(typed_idx(labels.astype(">f8"), 0x0E))
    with pytest.raises(DataError, match=r"label 7 is .*; expected class numbers"):
        load(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes([0, 0, 8, 255]) + bytes(4 * 255), "an array of 255 dimensions"),
        (bytes([0, 0, 8, 0]) + bytes(1), "an array of 0 dimensions"),
        (bytes([0, 0, 14, 3]) + b"\xff" * 12, "is truncated: 16 bytes; its header"),
        (gzipped(bytes([0, 0, 14, 3]) + b"\xff" * 12), "is truncated: at most \\d+ bytes; its header"),
        (gzipped(idx(np.zeros((30, 5, 4))) + bytes(10**7)), "is too long"),
        (gzipped(idx(np.zeros((30, 5, 4)))) + gzipped(b"x"), "is too long"),
        (bytes([0, 0, 8, 3]) + struct.pack(">3I", 0, 2**32 - 1, 2**32 - 1), "can't be read"),
        (bytes([0, 0, 8, 3]) + struct.pack(">3I", 0, 5, 4), "is empty"),
    ],
)
def test_what_a_header_announces_is_not_believed(folder: Path, content: bytes, message: str) -> None:
    (folder / "train-images-idx3-ubyte.gz").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(DataError, match=message):
        load(folder)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


@pytest.mark.parametrize(
    "names",
    [
        (
            "train-images.idx3-ubyte.gz",
            "train-labels.idx1-ubyte.gz",
            "t10k-images.idx3-ubyte",
            "t10k-labels.idx1-ubyte",
        ),
        tuple(f"emnist-letters-{kind}-ubyte.gz" for kind in ("train-images-idx3", "train-labels-idx1"))
        + tuple(f"emnist-letters-{kind}-ubyte.gz" for kind in ("test-images-idx3", "test-labels-idx1")),
        tuple(
            f"MNIST/raw/{kind}-ubyte"
            for kind in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
        ),
    ],
    ids=["dots", "EMNIST", "torchvision"],
)
def test_idx_files_are_found_by_the_names_that_they_come_with(
    tmp_path: Path, rng: np.random.Generator, names: tuple[str, ...]
) -> None:
    for name, shape in zip(names, [(9, 5, 4), (9,), (3, 5, 4), (3,)], strict=True):
        content = idx(rng.integers(1, 3, shape))
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    data = load(tmp_path)
    assert (data.train.x.shape, data.test.x.shape) == ((9, 20), (3, 20))


def test_of_a_folder_with_several_sets_one_is_named(tmp_path: Path) -> None:
    for name, number in (("letters", 4), ("digits", 6)):
        for part in ("train", "test"):
            images, labels = np.zeros((number, 2, 2)), np.zeros(number)
            (tmp_path / f"emnist-{name}-{part}-images-idx3-ubyte").write_bytes(idx(images))
            (tmp_path / f"emnist-{name}-{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(
        DataError, match=r"several data sets: emnist-digits, emnist-letters. Say which, as .*/emnist-digits"
    ):
        load(tmp_path)
    assert len(load(tmp_path / "emnist-letters").train) == 4


def test_plain_files_come_before_gzipped_ones(folder: Path) -> None:
    (folder / "train-images-idx3-ubyte").write_bytes(idx(np.full((30, 5, 4), 255)))
    assert (load(folder).train.x == 1).all()


def test_names_of_data_sets_are_found_in_capitals_too(mnist_folder: Path) -> None:
    assert len(load("Digits").train) == 1438
    assert len(load("MNIST").test) == 10000


def test_it_is_said_how_what_is_there_can_be_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    (tmp_path / "data.pkl").write_text("1,2")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("x.npy", r"is there, but of a kind that is not read.*a single array.*np.savez"),
        ("data.csv", r"which column is to be predicted\? Expected .*data.csv:COLUMN, with one of a, b"),
        ("data.pkl", r"is there, but of a kind that is not read"),
        ("data.pkl:a", r"only tables and HDF5 files have columns to choose, not .pkl"),
        ("empty", r"holds nothing that is read"),
        ("", r"has no array y; it holds x"),
        ("none.npz", r"There is no data set '.*none.npz'"),
    ):
        with pytest.raises(DataError, match=message):
            load(tmp_path / name)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="has no file t10k-labels-idx1-ubyte"):
        load(folder)


@pytest.mark.parametrize("steps", [2, 7, 20])
def test_the_adding_problem_marks_two_numbers_one_in_each_half_and_adds_them(steps: int) -> None:
    numbers, marks = np.moveaxis(adding(500, steps, seed=3).x, 2, 0)
    assert (marks.sum(axis=1) == 2).all()
    assert (marks[:, : steps // 2].sum(axis=1) == 1).all()
    assert ((marks == 0) | (marks == 1)).all()
    assert marks.any(axis=0).all()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    y = adding(500, steps, seed=3).y
    np.testing.assert_array_equal(y[:, 0], (numbers * marks).sum(axis=1))
    assert y.shape == (500, 1)
    assert y.var() == pytest.approx(1 / 6, rel=0.15)


def test_the_adding_problem_comes_by_name_with_sequences_to_train_on_and_others_to_test_with() -> None:
    train, test = load("adding:12").parts
    assert (train.x.shape, test.x.shape) == ((100_000, 12, 2), (10_000, 12, 2))
    assert (train.x == adding(100_000, 12).x).all()
    assert not (train.x[:10_000] == test.x).all(axis=(1, 2)).any()
    for wrong in ("adding:", "adding:1", "adding:x"):
        with pytest.raises(DataError, match=f"{wrong}: expected a whole number of steps, at least 2"):
            load(wrong)


def test_npz_files_are_read(tmp_path: Path, rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((50, 3)), rng.integers(0, 2, 50)
    np.savez(tmp_path / "split.npz", x=x, y=y, x_test=x[:5], y_test=y[:5])
    np.savez(tmp_path / "whole.npz", x=x, y=y)
    split, whole = load(tmp_path / "split.npz"), load(tmp_path / "whole.npz")
    assert (len(split.train), len(split.test)) == (50, 5)
    assert (len(whole.train), len(whole.test)) == (40, 10)
    assert sorted(np.concatenate([whole.train.x, whole.test.x])[:, 0]) == sorted(x[:, 0])
    assert (load(tmp_path / "whole.npz").test.x == whole.test.x).all()


def test_npz_files_that_can_not_be_used_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"can't be read"):
        load(path)
    np.savez(path, x=np.zeros((3, 2)))
    with pytest.raises(DataError, match="has no array y; it holds x"):
        load(path)
    np.savez(path, x=np.array([[1, "a"], [2, None]], object), y=np.zeros(2, int))
    with pytest.raises(DataError, match="x is an array of Python objects"):
        load(path)
    np.savez(path, x=np.zeros((30, 20)), y=np.zeros(30, int))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"can't be read"):
        load(path)
    with pytest.raises(DataError, match="There is no data set 'imagenet'"):
        load("imagenet")


def test_only_the_arrays_of_the_data_set_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.eye(4), y=np.arange(4), names=np.array([None, "a"], object))
    assert len(load(path).train) == 3
    assert load_samples(path).shape == (4, 4)
    with pytest.raises(DataError, match="names is an array of Python objects"):
        read_numpy(path)


def test_the_layout_of_keras_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mnist.npz"
    images, labels = np.arange(255, -1, -1).astype(np.uint8).repeat(2).reshape(8, 8, 8), np.arange(8, dtype=np.uint8)
    np.savez(path, x_train=images, y_train=labels, x_test=images[:2], y_test=labels[:2])
    data = load(path)
    assert (len(data.train), len(data.test), data.train.image_shape) == (8, 2, (8, 8, 1))
    np.savez(path, x_train=images, y_test=labels)
    with pytest.raises(
        DataError, match=r"has no array y_train; it holds x_train, y_test. Expected x_train and y_train"
    ):
        load(path)


def test_bytes_of_every_file_become_numbers_from_0_to_1(tmp_path: Path, rng: np.random.Generator) -> None:
    bytes_ = rng.integers(0, 256, (20, 6), np.uint8)
    bytes_[0, 0] = 255
    y = np.arange(20) % 2
    np.savez(tmp_path / "data.npz", x=bytes_, y=y, x_test=bytes_, y_test=y)
    np.save(tmp_path / "x.npy", bytes_)
    expected = bytes_ * np.float32(1 / 255)
    for x in (*(part.x for part in load(tmp_path / "data.npz").parts), load_samples(tmp_path / "x.npy")):
        assert x.dtype == np.float32
        np.testing.assert_array_equal(x, expected)
    for dtype in ("int8", "uint16", "int64", "float64", "bool"):
        np.save(tmp_path / "x.npy", bytes_.astype(dtype))
        np.testing.assert_array_equal(load_samples(tmp_path / "x.npy"), bytes_.astype(dtype))
    np.savez(tmp_path / "data.npz", x=bytes_, y=y, x_test=bytes_ / 255, y_test=y)
    with pytest.raises(DataError, match="samples of uint8 to train on, but of float64 in x_test"):
        load(tmp_path / "data.npz")


def test_bytes_that_are_probably_no_shades_are_said_to_be_taken_for_some(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.eye(8, dtype=np.uint8), y=np.arange(8))
    with pytest.warns(DataWarning, match=r"x holds bytes from 0 to 1. Bytes of files are taken for images"):
        load(tmp_path / "data.npz")


def npy(header: str, content: bytes = b"", version: bytes = b"\1\0") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", bytes(24)), None),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", bytes(20)), "not whole"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", bytes(25)), "not whole"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -3), }", bytes(24)), r"the shape \(-2, -3\)"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, True), }", bytes(8)), r"the shape \(2, True\)"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2.0, 3), }", bytes(24)), "can't be read"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3", bytes(24)), "can't be read"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (10**9,), }"), "can't be read"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000, 4000000000), }"), "not whole"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000, 0), }"), "is empty"),
        (
            npy("{'descr': '<U0', 'fortran_order': False, 'shape': (4000000000, 4000000000), }"),
            "whose elements hold nothing",
        ),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }", bytes(48)), "Python objects"),
        (npy("{'descr': '<q9', 'fortran_order': False, 'shape': (2, 3), }", bytes(48)), "can't be read"),
        (npy("(" * 4000), "can't be read"),
        (
            b"\x93NUMPY\2\0" + struct.pack("<I", 2**30) + bytes(2**20),
            "a header of 1,073,741,824 bytes; expected at most",
        ),
        (b"\x93NUMPY\1\0\xff\xff" + bytes(2**16), "a header of 65,535 bytes; expected at most"),
        (b"\x93NUMPY\2\0\xff", "can't be read"),
        (npy("", version=b"\3\0"), "version .* of NumPy's format"),
        (npy("", version=b"\x09\0"), "version .* of NumPy's format"),
        (b"\x93NUMPY", "can't be read"),
        (b"", "can't be read"),
    ],
)
def test_what_numpy_files_announce_is_not_believed(tmp_path: Path, content: bytes, message: str | None) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    if message is None:
        assert load_samples(path).shape == (2, 3)
        return
    with pytest.raises(DataError, match=message):
        load_samples(path)
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content)
        archive.writestr("y.npy", content)
    with pytest.raises(DataError, match=rf"d.npz: x.*({message})|{message}"):
        load(tmp_path / "d.npz")


@pytest.mark.parametrize("name", ["zero", "null", "full"])
def test_what_has_no_end_is_no_file_of_arrays(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.npz"
    path.symlink_to(f"/dev/{name}")
    for read in (load, load_samples):
        with pytest.raises(DataError, match=r"x.npz is no regular file"):
            read(path)


def test_more_than_memory_holds_is_refused_before_it_is_unpacked(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "d.npz", x=np.zeros((1000, 100)), y=np.zeros(1000))
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros((30, 50, 40)))))
    monkeypatch.setattr("dist_relu.data.idx.available_memory_bytes", lambda: 50_000)
    for path, name, size in ((tmp_path / "d.npz", "d.npz: x", "800,000"), (folder, "train-images.*", "60,000")):
        with pytest.raises(
            DataError, match=f"{name} unpacks to {size} bytes, but only 50,000 bytes of memory are left"
        ):
            load(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_are_packed_as_numpy_packs_them(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w", method) as archive:
        archive.writestr("x.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", bytes(24)))
    with pytest.raises(DataError, match=r"d.npz: x is packed in a way that np.savez"):
        load_samples(tmp_path / "d.npz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        for _ in range(2):
            archive.writestr("x.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", bytes(24)))
    with pytest.raises(DataError, match=r"d.npz holds x more than once"):
        load_samples(tmp_path / "d.npz")


@pytest.mark.parametrize("x", [np.eye(3).T, np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.eye(3, dtype=">f8")])
def test_orders_of_elements_and_bytes_are_those_of_the_file(tmp_path: Path, x: Array) -> None:
    np.save(tmp_path / "x.npy", x)
    np.savez_compressed(tmp_path / "x.npz", x=x)
    for name in ("x.npy", "x.npz"):
        np.testing.assert_array_equal(load_samples(tmp_path / name), x)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ({"x_test": np.zeros((2, 5)), "y_test": np.zeros(2, int)}, "have shape (4,), but those to test with (5,)"),
        ({"x_test": np.zeros((2, 4)), "y_test": np.zeros(2)}, "expected the same kind"),
        ({"x_test": np.zeros((2, 4))}, "has only one of x_test and y_test"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path, test: dict[str, Array], message: str) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((9, 4)), y=np.zeros(9, int), **test)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=re.escape(message)):
        load(tmp_path / "data.npz")


def test_labels_of_the_test_part_count_for_the_number_of_classes(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((9, 4)), y=np.zeros(9, int), x_test=np.zeros((1, 4)), y_test=[3])
    assert load(tmp_path / "data.npz").num_outputs() == 4


def test_targets_take_the_shape_that_models_give() -> None:
    x = np.zeros((3, 2))
    assert Dataset(x, np.zeros((3, 1), int)).y.shape == (3,)
    assert Dataset(x, np.zeros(3)).y.shape == (3, 1)
    assert Dataset(x, np.array([True, False, True])).has_classes
    with pytest.raises(DataError, match="Label 1000000000000 of sample 1 is no class number"):
        Dataset(x, np.array([0, 10**12, 1])).num_outputs()


def with_value(value: float, dtype: str = "float64") -> Array:
    x = np.zeros((4, 3), dtype)
    x[2, 1] = value
    return x


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((4, 3)), np.zeros(5, int), "x has 4 samples, but y has 5"),
        (with_value(np.nan), np.zeros(4, int), r"x\[2, 1\] is nan; expected finite numbers. 1 of 12"),
        (with_value(-np.inf, "float32"), np.zeros(4, int), r"x\[2, 1\] is -inf"),
        (np.zeros((4, 3)), with_value(np.inf), r"y\[2, 1\] is inf"),
        (np.zeros((4, 3), "float16"), np.zeros(4, int), "x is float16"),
        (np.zeros((4, 3), object), np.zeros(4, int), "x has dtype object"),
        (np.zeros((4, 3)), np.zeros(4, complex), "y has dtype complex128"),
        (np.zeros(4), np.zeros(4, int), r"x has shape \(4,\)"),
        (np.zeros((0, 3)), np.zeros(0, int), "is empty"),
        (np.zeros((4, 0)), np.zeros(4, int), "is empty"),
    ],
)
def test_data_that_can_not_be_trained_on_is_refused(x: Array, y: Array, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Dataset(x, y)


def masked() -> Array:
    return np.ma.masked_equal(np.arange(12.0).reshape(4, 3), 5)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (masked(), r"masked elements.* Fill them, as with x.filled\(0\)"),
        (list(masked()), r"masked elements"),
        ([[1.0, 2.0], (3.0, np.ma.masked)], r"masked elements"),
        (csr_matrix(np.eye(4)), r"sparse matrix \(csr_matrix\); expected an array: x.toarray\(\)"),
        ((row for row in np.eye(4)), r"is a generator; expected an array: np.array\(list\(x\)\)"),
        (iter(np.eye(4).tolist()), r"np.array\(list\(x\)\)"),
        ([[1, 2], [3]], "can't be made an array of numbers: .*inhomogeneous"),
        ({1: 2}, "is of type dict"),
        (None, "is of type NoneType"),
        (np.eye(4).astype(object), r"dtype object.*: x.astype\('float64'\)"),
        (np.eye(4, dtype=int).astype(object), r"dtype object.*: x.astype\('int64'\)"),
        ([[1, 2], [3, None]], r"x\[1, 1\] is of type NoneType"),
        ([[Decimal(1)], [Decimal(2)]], r"x\[0, 0\] is of type Decimal"),
        (np.zeros(4, [("a", "f4"), ("b", "i4")]), r"structured_to_unstructured\(x\)"),
        (np.eye(4) + 1j, "x.real, x.imag"),
        (np.arange(4).astype("M8[D]").reshape(4, 1), "A number of days since the first"),
        (np.arange(4).astype("m8[s]").reshape(4, 1), "A number of days"),
        (np.array([["1"], ["2"]]), r"x.astype\('float64'\)"),
        (np.array([["1"], ["2"]], object), r"x.astype\('float64'\)"),
        (np.eye(4, dtype=np.longdouble), r"x.astype\('float64'\)"),
        (np.zeros((4, 1), "V4"), r"x.astype\('float32'\)"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused_with_what_to_write_instead(x: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Dataset(x, np.zeros(4, int))
    with pytest.raises(DataError, match=message):
        numbers("x", x)


def test_errors_of_data_from_files_begin_with_the_file(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=with_value(np.nan), y=np.array(list("abcd")))
    with pytest.raises(DataError, match=r"^/.*data.npz: x\[2, 1\] is nan"):
        load(path)
    with pytest.raises(DataError, match=r"^/.*data.npz: x\[2, 1\] is nan"):
        load_samples(path)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(7)))
    with pytest.raises(DataError, match=r"^/.*train-images-idx3-ubyte.gz: x has 30 samples, but y has 7"):
        load(folder)


def test_functions_of_arrays_know_masks_too() -> None:
    for call in (dr.activations.relu, dr.activations.softmax):
        with pytest.raises(DataError, match=r"masked elements"):
            call(masked())


@pytest.mark.parametrize(
    "x",
    [
        pytest.param(np.matrix([[1, 0], [0, 1]]), id="matrix"),
        pytest.param(np.eye(2, dtype=">f4"), id="big-endian"),
        pytest.param(np.asfortranarray(np.eye(2)), id="Fortran order"),
        pytest.param(np.eye(2)[::-1][::-1], id="strides"),
        pytest.param(np.eye(2) > 0, id="bool"),
        pytest.param(np.ma.array(np.eye(2)), id="masked, but nothing is"),
        pytest.param([[1, 0], [0, 1]], id="lists"),
    ],
)
def test_arrays_of_other_kinds_become_plain_ones(x: Any) -> None:
    for array in (Dataset(x, np.zeros(2, int)).x, numbers("x", x)):
        assert type(array) is np.ndarray
        assert array.dtype.isnative
        np.testing.assert_array_equal(array, np.eye(2))


def test_labels_that_leave_out_most_numbers_are_taken_with_a_warning() -> None:
    data = Dataset(np.eye(4), np.array([0, 1000, 0, 1000]))
    with pytest.warns(
        DataWarning, match=r"up to 1000, but only 2 of these 1001 classes occur.*np.unique\(y, return_inverse=True\)"
    ):
        assert data.num_outputs() == 1001
    with pytest.raises(DataError, match=r"y\[1\] is 9223372036854775809, which is no class number"):
        Dataset(np.eye(2), np.array([0, 2**63 + 1], np.uint64))


@pytest.mark.parametrize(
    ("y", "reason"),
    [
        (np.array([0.0, 1.0, 1.0, 2.0]), r"only the numbers 0, 1, 2; for classes pass y.astype\(int\)"),
        (np.eye(4), r"a single 1 in every row; for classes pass y.argmax\(axis=1\)"),
        (np.array([0.0, 1.0, 1.5, 2.0]), None),
        (np.array([0.0, 3.0, 9.0, 3.0]), None),
        (np.array([-1.0, 1.0, 1.0, -1.0]), None),
        (np.ones((4, 2)), None),
        (np.arange(4), None),
    ],
)
def test_real_targets_that_look_like_classes_are_known(y: Array, reason: str | None) -> None:
    found = Dataset(np.eye(4), y).look_like_classes()
    assert found == reason or re.search(str(reason), str(found))


def test_a_shape_of_images_is_that_of_the_samples() -> None:
    assert Dataset(np.zeros((2, 12)), np.zeros(2, int), (2, 2, 3)).image_shape == (2, 2, 3)
    for shape in ((3, 3, 3), (4, 3)):
        with pytest.raises(DataError, match=r"is not that of samples of shape \(12,\)"):
            Dataset(np.zeros((2, 12)), np.zeros(2, int), shape)  # type: ignore[arg-type]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server on this machine with small files of the form of MNIST, and an empty cache."""
    served = tmp_path / "served"
    served.mkdir()
    digests = {}
    for prefix, number in (("train", 30), ("t10k", 10)):
        for kind, array in (("images-idx3", np.ones((number, 5, 4))), ("labels-idx1", np.arange(number) % 3)):
            name = f"{prefix}-{kind}-ubyte"
            (served / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
            digests[name] = hashlib.sha256(idx(array)).hexdigest()
    monkeypatch.setattr("dist_relu.data.downloads.MNIST_SHA256", digests)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as started:
        thread = threading.Thread(target=started.serve_forever)
        thread.start()
        monkeypatch.setattr("dist_relu.data.downloads.MNIST_URL", f"http://127.0.0.1:{started.server_port}/")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv("DIST_RELU_DATA", raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield served
        started.shutdown()
        thread.join()


def test_mnist_is_downloaded_once_and_checked(server: Path) -> None:
    assert len(load("mnist").train) == 30
    shutil.rmtree(server)
    assert len(load("mnist").test) == 10


def test_a_download_that_is_not_mnist_is_refused_and_not_kept(server: Path, tmp_path: Path) -> None:
    (server / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    digest = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(DataError, match=f"t10k-labels-idx1-ubyte.gz has SHA-256 {digest} when unpacked; expected"):
        load("mnist")
    kept = sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert "t10k-labels-idx1-ubyte" not in kept


def test_a_download_that_fails_says_what_to_do(server: Path) -> None:
    shutil.rmtree(server)
    with pytest.raises(DataError, match=r"could not be downloaded from .* set DIST_RELU_DATA"):
        load("mnist")


def test_samples_in_the_content_of_a_npy_file_are_those_of_the_file(tmp_path: Path) -> None:
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.save(tmp_path / "x.npy", images)
    in_memory = samples_in((tmp_path / "x.npy").read_bytes(), "x")
    assert in_memory.dtype == np.float32
    assert (in_memory == load_samples(tmp_path / "x.npy")).all()


@pytest.mark.parametrize("content", [b"", b"[[1.0]]", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'"])
def test_what_is_no_npy_file_in_memory_is_refused_by_name(content: bytes) -> None:
    with pytest.raises(dr.DataError, match="The body"):
        samples_in(content, "The body")
