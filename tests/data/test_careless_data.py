"""Data that are not as readers expect: what is said, and what to do."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dist_relu.data import from_frame, load, load_samples
from dist_relu.errors import DataError, DataWarning
from tests.data import formats

CSV = "height,colour,price,label\n1.5,red,3,cat\n2.5,blue,4,dog\n1.0,red,5,cat\n"


@pytest.mark.parametrize(
    ("content", "column", "message"),
    [
        (CSV, ":lable", r"has no column lable; it has height, colour, price, label. Did you mean label\?"),
        (CSV, "", r"which column is to be predicted\? Expected .*t.csv:COLUMN, with one of height, colour"),
        (
            CSV,
            ":label",
            r"column colour holds no numbers \(but string\). Leave .*get_dummies\(frame, columns=\['colour'\]",
        ),
        ("", ":a", "is empty, or begins with an empty line; expected the names of its columns there"),
        ("a,b\n", ":b", "has no rows"),
        ("a,b\n1,2\n3\n", ":b", "can't be read as a table: CSV parse error: .*Expected 2 columns, got 1"),
        ("a,b\n1,2\nNaN,3\n", ":b", "column a is empty in row 1"),
        ("a,b\n1,2\n2,\n", ":b", "the target b is empty in row 1"),
        ("a,b\n1,x\n2,\n", ":b", "the target b is empty in row 1"),
        ("a,b\n1,2\n", ":b", "1 sample can't be split"),
        ("b\n1\n2\n", ":b", "has no columns beside b"),
        ("a,a,b\n1,2,3\n", ":b", "more than one column a"),
        ("5.1,3.5,0\n4.9,3.0,1\n", ":2", "has no column 2.*The first line looks like a row of numbers"),
        ("a,b\n1,2000-01-01\n2,2000-01-02\n", ":b", "b is of type date32.*; expected numbers"),
        ("\x00\x01\x02", ":b", "can't be read as a table"),
    ],
)
def test_tables_say_what_is_wrong(tmp_path: Path, content: str, column: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        load(f"{tmp_path}/t.csv{column}")
    assert "t.csv" in str(caught.value)


def test_whole_numbers_are_classes_others_are_not_and_words_are_by_name(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i % 2},{i / 4},{'ab'[i % 2]}\n" for i in range(20))
    for column, has_classes, classes in ((1, True, None), (2, False, None), (3, True, ("a", "b"))):
        lines = ["x,whole,real,word", *rows.splitlines()]
        kept = "\n".join(",".join(np.array(line.split(","))[[0, column]]) for line in lines)
        (tmp_path / "t.csv").write_text(kept)
        data = load(f"{tmp_path}/t.csv:{lines[0].split(',')[column]}").train
        assert (data.has_classes, data.classes) == (has_classes, classes)


def test_several_columns_are_predicted_at_once(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,a,b\n" + "".join(f"{i},{i / 2},{i}\n" for i in range(10)))
    assert load(f"{tmp_path}/t.csv:a,b").train.y.shape == (8, 2)


def test_types_are_those_of_all_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y\n" + "1,0\n" * 300_000 + "1.5,1\n")
    assert load(f"{tmp_path}/t.csv:y").train.x.dtype == np.float64


def test_parts_of_tables_have_the_same_columns_and_names_tell_them(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a,y\n1,0\n2,1\n")
    (tmp_path / "test.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match=r"test.csv has no column y; it has a"):
        load(f"{tmp_path}:y")
    (tmp_path / "test.csv").write_text("a,y\n1,0\n")
    assert [len(part) for part in load(f"{tmp_path}:y").parts] == [2, 1]
    (tmp_path / "sample.csv").write_text("a,y\n1,0\n")
    with pytest.raises(
        DataError, match=r"test.csv, whose name tells a part, but also sample.csv, whose name tells none"
    ):
        load(f"{tmp_path}:y")
    (tmp_path / "sample.csv").rename(tmp_path / "train2.parquet")
    with pytest.raises(DataError, match=r"holds files of .csv and .parquet; expected one kind"):
        load(f"{tmp_path}:y")


def test_a_class_of_the_test_part_alone_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a,y\n1,cat\n2,dog\n")
    (tmp_path / "test.csv").write_text("a,y\n1,cow\n")
    with pytest.warns(
        DataWarning, match="Nothing is labelled cow among the samples to train on, only in the part test"
    ):
        assert load(f"{tmp_path}:y").train.classes == ("cat", "cow", "dog")


@pytest.mark.parametrize(
    ("frame", "target", "message"),
    [
        (pd.DataFrame({"a": [1.0, None], "y": [0, 1]}), "y", "column a is empty in row 1"),
        (
            pd.DataFrame({"a": pd.Categorical(["u", "v"]), "y": [0, 1]}),
            "y",
            r"column a holds no numbers \(but dictionary",
        ),
        (
            pd.DataFrame({"a": [datetime.datetime(2020, 1, 1)] * 2, "y": [0, 1]}),
            "y",
            r"holds no numbers \(but timestamp",
        ),
        (pd.DataFrame({"a": [1, "x"], "y": [0, 1]}), "y", "can't be read as a table"),
        (pd.DataFrame({"a": [1.0, 2.0], "y": [0, 1]}), "z", "The frame has no column z"),
        (pa.table({"a": [[1, 2], [3]], "y": [0, 1]}), "y", "the lists of column a are not of one length"),
    ],
)
def test_frames_say_what_is_wrong(frame: Any, target: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_frame(frame, target)


def test_frames_are_what_from_frame_takes() -> None:
    with pytest.raises(TypeError, match=r"a frame of pandas or Polars.*, not list"):
        from_frame([[1, 2]], "y")


def test_targets_of_frames_that_are_categories_are_classes() -> None:
    data = from_frame(pd.DataFrame({"a": [1.0, 2.0, 3.0], "y": pd.Categorical(["v", "u", "v"])}), "y")
    assert (data.y.tolist(), data.classes) == ([1, 0, 1], ("u", "v"))
    again = from_frame(pd.DataFrame({"a": [1.0], "y": ["v"]}), "y", classes=data.classes)
    assert again.y.tolist() == [1]


def test_single_bytes_in_tables_are_numbers_and_no_shades(tmp_path: Path) -> None:
    pq.write_table(pa.table({"age": pa.array([20, 40, 60], pa.uint8()), "y": [0, 1, 0]}), tmp_path / "t.parquet")
    data = load(f"{tmp_path}/t.parquet:y")
    assert sorted(np.concatenate([np.asarray(part.x)[:, 0] for part in data.parts])) == [20, 40, 60]


def image(path: Path, size: tuple[int, int] = (4, 3), mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        image(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: image(folder / "dog/2.png", (5, 3)),
            r"4 x 3 pixels, but .*dog/2.png has 5 x 3; expected one size",
        ),
        (lambda folder: (folder / "cat/1.png").write_bytes(b"no image"), r"cat/1.png can't be read as an image"),
        (lambda folder: (folder / "cat/1.png").write_bytes(b""), r"cat/1.png can't be read as an image"),
        (lambda folder: (folder / "eel").mkdir(), "eel holds no images, so there is nothing of the class eel"),
        (lambda folder: image(folder / "cat/1.png", mode="I;16"), "pixels of more than 8 bits"),
        (lambda folder: (folder / "dog").rename(folder / "val"), "can't be split|expected one for each class"),
        (lambda folder: image(folder / "test/dog/1.png"), "holds the folders test; expected train"),
    ],
)
def test_folders_of_images_say_what_is_wrong(images: Path, change: Callable[[Path], Any], message: str) -> None:
    change(images)
    if "val" in {path.name for path in images.iterdir()}:
        assert load(images).train.classes == ("cat", "val")  # a class that happens to be called so
        return
    with pytest.raises(DataError, match=message):
        load(images)


def test_images_are_grey_only_where_all_of_them_are(images: Path) -> None:
    assert load(images).train.sample_shape == (3, 4, 1)
    image(images / "dog/2.png", mode="RGB")
    data = load(images).train
    assert (data.sample_shape, data.image_shape) == ((3, 4, 3), (3, 4, 3))


def test_tar_files_say_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    formats.shard(path, formats.SHADES[:4], np.arange(4))
    assert len(load(path).train) == 3
    whole = path.read_bytes()
    for content, message in (
        (b"", "can't be read as a tar file"),
        (whole[:700], "can't be read as a tar file|has no label"),
        (b"x" * 2000, "can't be read as a tar file"),
        (bytes(10240), "holds no samples"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            load(path)
    with pytest.raises(DataError, match="There is no data set"):
        load(tmp_path / "{b,c}.tar")
    with pytest.raises(DataError, match="stands for more than 100,000 files"):
        load(tmp_path / "{000000..900000}.tar")


def test_hdf5_says_what_is_wrong(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["images"], file["labels"], file["names"] = np.zeros((3, 4)), [0, 1, 0], ["u", "v", "u"]
        file["elsewhere"] = h5py.ExternalLink("g.h5", "labels")
    with h5py.File(tmp_path / "g.h5", "w") as file:
        file["labels"] = [0, 1, 0]
    assert load(f"{tmp_path}/f.h5:images,names").train.classes == ("u", "v")
    for names, message in (
        ("images,lables", r"has no dataset 'lables'; it has .*images, labels, names"),
        ("pictures,labels", r"has no dataset 'pictures'"),
        ("images", "expected two names, or four, or six"),
        ("images,elsewhere", "elsewhere lies in other files"),
    ):
        with pytest.raises(DataError, match=message):
            load(f"{tmp_path}/f.h5:{names}")
    (tmp_path / "f.h5").write_bytes(b"no HDF5")
    with pytest.raises(DataError, match="can't be read as an HDF5 file"):
        load(f"{tmp_path}/f.h5")


def test_libsvm_says_what_is_wrong_and_names_classes_by_their_labels(tmp_path: Path) -> None:
    path = tmp_path / "d.libsvm"
    path.write_text("-1 1:0.5 3:1\n+1 2:2\n-1 1:1\n")
    assert load(path).train.classes == ("-1", "1")
    (tmp_path / "d.libsvm.t").write_text("1 4:1\n")
    assert load(path).test.sample_shape == (4,)
    for content, message in (
        ("", "has no rows|can't be read"),
        ("1 1:a\n", "can't be read as LIBSVM's text"),
        ("1 3000000000:1\n", "can't be read|unpacks to"),
        ("1,2 1:1\n", "can't be read"),
    ):
        (tmp_path / "d.libsvm.t").unlink(missing_ok=True)
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            load(path)


def test_cifar_says_what_is_wrong(tmp_path: Path) -> None:
    for name in ("data_batch_1.bin", "test_batch.bin"):
        rows = np.random.default_rng(0).integers(0, 256, (6, 3073), np.uint8)
        rows[:, 0] = np.arange(6)
        (tmp_path / name).write_bytes(rows.tobytes())
    data = load(tmp_path)
    assert (data.train.sample_shape, data.train.y.tolist(), data.train.classes) == ((32, 32, 3), list(range(6)), None)
    red = np.frombuffer((tmp_path / "data_batch_1.bin").read_bytes(), np.uint8).reshape(6, 3073)[2, 1:1025]
    np.testing.assert_array_equal(np.asarray(data.train.x)[2, :, :, 0].reshape(-1), red * np.float32(1 / 255))
    (tmp_path / "batches.meta.txt").write_text("airplane automobile")
    with pytest.raises(DataError, match=r"batches.meta.txt has 2 different names of classes; expected 10"):
        load(tmp_path)
    (tmp_path / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    assert load(tmp_path).train.classes == tuple("abcdefghij")
    (tmp_path / "test_batch.bin").write_bytes(bytes(5000))
    with pytest.raises(DataError, match=r"has 5,000 bytes; expected rows of 3,073"):
        load(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(b"\x0a" * 3073)
    with pytest.raises(DataError, match=r"the class of row 0 is 10; expected less than 10"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("library", "write", "extra"),
    [
        ("pyarrow", formats.csv, "tables"),
        ("pyarrow", formats.parquet, "tables"),
        ("h5py", formats.hdf5, "hdf5"),
        ("PIL", formats.image_folder, "images"),
        ("sklearn", formats.libsvm, "data"),
    ],
)
def test_it_is_said_what_to_install(
    library: str, write: Callable[[Path], Any], extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DataError, match=rf"pip install 'dist_relu\[{extra}\]'"):
        load(source)


def test_samples_without_targets_come_from_tables_and_images_too(images: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3,4\n")
    assert load_samples(tmp_path / "t.csv").tolist() == [[1, 2], [3, 4]]
    pq.write_table(pa.table({"a": [1.5, 2], "b": [0, 1]}), tmp_path / "t.parquet")
    assert load_samples(tmp_path / "t.parquet").tolist() == [[1.5, 0], [2, 1]]
    assert load_samples(images / "cat").shape == (2, 3, 4, 1)
    assert load_samples(images / "cat" / "1.png").shape == (1, 3, 4, 1)
    (tmp_path / "none").mkdir()
    (tmp_path / "t.csv").write_text("a,b\n")
    for name, message in (("none", "none holds no images"), ("t.csv", r"t.csv has no rows")):
        with pytest.raises(DataError, match=message):
            load_samples(tmp_path / name)
