"""Samples that stay in files until they are needed."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.core.arrays import Array
from dist_relu.data import Hdf5Dataset, NpyFile, Rows, TableFiles
from dist_relu.errors import DataError
from tests.data.stored import KINDS, stored


@pytest.fixture
def x(rng: np.random.Generator) -> Array:
    return rng.standard_normal((230, 5)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_read_like_the_array_that_was_stored(kind: str, x: Array, tmp_path: Path) -> None:
    rows, numbers = stored(x, kind, tmp_path), np.array([7, 229, 7, 0])
    assert (rows.shape, rows.dtype, len(rows)) == (x.shape, x.dtype, len(x))
    np.testing.assert_array_equal(np.asarray(rows), x)
    np.testing.assert_array_equal(rows[numbers], x[numbers])
    np.testing.assert_array_equal(rows[10:50:3, 2], x[10:50:3, 2])
    np.testing.assert_array_equal(rows[-1], x[-1])
    np.testing.assert_array_equal(rows[x[:, 0] > 0], x[x[:, 0] > 0])
    np.testing.assert_array_equal(rows.take(numbers).take(np.array([1, 1]))[:], x[[229, 229]])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_pickled_as_their_description(kind: str, x: Array, tmp_path: Path) -> None:
    rows = stored(x, kind, tmp_path)
    np.testing.assert_array_equal(rows[:5], x[:5])
    description = pickle.dumps(rows)
    assert len(description) < x.nbytes / 2
    np.testing.assert_array_equal(pickle.loads(description)[:], x)


@pytest.mark.parametrize("dtype", [">f4", "<f2", "<f8", "<i8", "<u1", "|b1"])
def test_files_may_hold_numbers_of_any_type(dtype: str, x: Array, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", (abs(x) * 3).astype(dtype))
    rows, model = Rows(NpyFile.of(tmp_path / "x.npy")), nn.mlp((4,), 2)
    y, expected = np.arange(len(x)) % 2, nn.mlp((4,), 2)
    with dr.start(backend="serial") as coordinator:
        for trained, samples in ((model, rows), (expected, (abs(x) * 3).astype(dtype).astype(np.float32))):
            coordinator.fit(trained, dr.Dataset(samples, y), optim.SGD(0.01), epochs=1, batch_size=32)
    assert model.sha256() == expected.sha256()


def test_bytes_are_read_as_numbers_from_0_to_1(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (40, 2, 3), np.uint8)
    expected = np.multiply(pixels, np.float32(1 / 255), dtype=np.float32)
    data = dr.Dataset(Rows(pixels, scale=1 / 255), np.arange(40) % 2)
    np.testing.assert_array_equal(data.x, expected)
    np.testing.assert_array_equal(data.of_rows(np.array([3, 1])).x, expected[[3, 1]])
    assert data.x.dtype == np.float32


@pytest.mark.parametrize("kind", ["npy", "hdf5-packed"])
def test_a_row_that_is_no_number_is_named_when_it_is_read(kind: str, tmp_path: Path, rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((600, 1000)).astype(np.float32), np.arange(600) % 2  # too many to be looked at before
    x[599, 4] = np.nan
    data = dr.Dataset(stored(x, kind, tmp_path), y)
    with dr.start(backend="serial") as coordinator:
        for shuffle in (True, False):
            with pytest.raises(DataError, match=r"x\[599, 4\] is nan; expected finite numbers"):
                coordinator.fit(nn.mlp((4,), 2), data, optim.SGD(0.01), epochs=1, batch_size=20, shuffle=shuffle)
        with pytest.raises(DataError, match=r"x\[599, 4\] is nan"):
            coordinator.evaluate(nn.mlp((4,), 2).build((1000,)).initialize(), data)


def test_a_file_that_is_gone_is_missed_with_the_name_of_the_machine(x: Array, tmp_path: Path) -> None:
    for kind in KINDS:
        rows = pickle.loads(pickle.dumps(stored(x, kind, tmp_path)))
        for path in tmp_path.iterdir():
            path.unlink()
        with pytest.raises(DataError, match=r"is not there on .*Every machine with workers reads the samples itself"):
            rows[:3]


def test_a_file_that_has_changed_is_not_read(x: Array, tmp_path: Path) -> None:
    rows = [stored(x, kind, tmp_path) for kind in ("npy", "hdf5", "parquet-1")]
    np.save(tmp_path / "x.npy", x[:10])
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["x"] = x[:10]
    pa.parquet.write_table(pa.table({f"f{n:03}": x[:10, n] for n in range(5)}), tmp_path / "0000.parquet")
    for one in rows:
        with pytest.raises(DataError, match=r"(has|have) changed|can't be read"):
            one[:3]


def test_what_can_be_no_samples_is_refused_at_once(x: Array, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    for array, message in (
        (np.asfortranarray(x), "columns one after another"),
        (x[:, 0], r"has shape \(230,\); expected samples along the first axis"),
        (x[:0], "The data set is empty"),
        (x.astype(complex), "has dtype complex128"),
    ):
        np.save(path, array)
        with pytest.raises(DataError, match=message):
            NpyFile.of(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match="is not whole"):
        NpyFile.of(path)
    stored(x, "hdf5", tmp_path)
    with pytest.raises(DataError, match="has no dataset 'images'; it has x"):
        Hdf5Dataset.of(tmp_path / "x.hdf5", "images")
    with pytest.raises(DataError, match="can't be read as an HDF5 file"):
        Hdf5Dataset.of(path, "x")


def test_tables_with_gaps_words_or_other_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pa.parquet.write_table(pa.table({"a": [1.0, None], "b": ["x", "y"], "c": [[1, 2], [3]]}), path)
    with pytest.raises(DataError, match="column b is of type string; expected numbers"):
        TableFiles.of([path], ["b"])
    with pytest.raises(DataError, match="has no column z; it has a, b, c"):
        TableFiles.of([path], ["z"])
    with pytest.raises(DataError, match="column a is empty in row 1"):
        np.asarray(Rows(TableFiles.of([path], ["a"])))
    with pytest.raises(DataError, match="the lists of column c are not of one length"):
        np.asarray(Rows(TableFiles.of([path], ["c"])))


def test_columns_of_lists_are_as_many_columns(tmp_path: Path, x: Array) -> None:
    path = tmp_path / "table.parquet"
    lists = pa.FixedSizeListArray.from_arrays(pa.array(x[:, 1:].reshape(-1)), 4)
    pa.parquet.write_table(pa.table({"first": x[:, 0], "rest": lists}), path)
    np.testing.assert_array_equal(np.asarray(Rows(TableFiles.of([path], ["first", "rest"]))), x)


def test_without_their_libraries_files_say_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    for module, extra in (("h5py", "hdf5"), ("pyarrow.parquet", "tables")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(DataError, match=rf"pip install 'dist_relu\[{extra}\]'"):
            Hdf5Dataset.of(path, "x") if module == "h5py" else TableFiles.of([path], ["x"])
