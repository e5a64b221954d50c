"""The same small data sets in every format that is read."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import dump_svmlight_file

from tests.twin import Array

_rng = np.random.default_rng(7)

LABELS = np.sort(np.arange(48) % 4)
SHADES = _rng.integers(0, 256, (48, 8, 8), np.uint8)
TEST_LABELS = np.arange(4)
TEST_SHADES = _rng.integers(0, 256, (4, 8, 8), np.uint8)
"""Images in the order of their classes, as those in folders are read."""

X = _rng.standard_normal((60, 5)).round(3)
Y = np.arange(60) % 3
"""Numbers, of which a part is set apart."""


def idx(array: Array) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype("u1").tobytes()


def png(pixels: Array) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def keras(folder: Path) -> Path:
    arrays = {"x_train": SHADES, "y_train": LABELS, "x_test": TEST_SHADES, "y_test": TEST_LABELS}
    np.savez(folder / "keras.npz", **arrays)  # type: ignore[arg-type]
    return folder / "keras.npz"


def medmnist(folder: Path) -> Path:
    parts = {"train": (SHADES, LABELS), "val": (TEST_SHADES, TEST_LABELS), "test": (TEST_SHADES, TEST_LABELS)}
    arrays = {f"{part}_images": images for part, (images, _) in parts.items()}
    arrays |= {f"{part}_labels": labels.reshape(-1, 1).astype(np.uint8) for part, (_, labels) in parts.items()}
    np.savez(folder / "medmnist.npz", **arrays)  # type: ignore[arg-type]
    return folder / "medmnist.npz"


def npy_files(folder: Path) -> Path:
    for name, array in (("X_train", SHADES), ("y_train", LABELS), ("X_test", TEST_SHADES), ("y_test", TEST_LABELS)):
        np.save(folder / f"{name}.npy", array)
    return folder


def idx_files(folder: Path) -> Path:
    for prefix, images, labels in (("train", SHADES, LABELS), ("t10k", TEST_SHADES, TEST_LABELS)):
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))
    return folder


def hdf5(folder: Path) -> str:
    with h5py.File(folder / "file.h5", "w") as file:
        file["images"], file["labels"], file["more"] = SHADES, LABELS, np.zeros(3)
        file.create_dataset("unseen/images", data=TEST_SHADES, chunks=(2, 8, 8), compression="gzip")
        file["unseen/labels"] = TEST_LABELS
    return f"{folder}/file.h5:images,labels,unseen/images,unseen/labels"


def parquet_of_lists(folder: Path) -> str:
    for part, images, labels in (("train", SHADES, LABELS), ("test", TEST_SHADES, TEST_LABELS)):
        pixels = pa.array(list(images.reshape(-1, 64)), pa.list_(pa.uint8(), 64))
        pq.write_table(pa.table({"pixels": pixels, "label": labels}), folder / f"{part}-00000-of-00001.parquet")
    return f"{folder}:label"


def parquet_of_images(folder: Path) -> str:
    """As Hugging Face's libraries write it."""
    feature = {"image": {"_type": "Image"}, "label": {"names": list("abcd"), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": feature}})}
    for part, images, labels in (("train", SHADES, LABELS), ("test", TEST_SHADES, TEST_LABELS)):
        cells = [{"bytes": png(each), "path": None} for each in images]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(cells, kind), "label": labels})
        pq.write_table(table.replace_schema_metadata(metadata), folder / f"{part}-00000-of-00001.parquet")
    return f"{folder}/*.parquet:label"


def image_folder(folder: Path) -> Path:
    for part, images, labels in (("train", SHADES, LABELS), ("test", TEST_SHADES, TEST_LABELS)):
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / part / "abcd"[label] / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(image))
    (folder / "train" / "a" / "notes.txt").write_text("no image")
    return folder


def shard(path: Path, images: Array, labels: Array, *, as_json: bool = False) -> None:
    with tarfile.open(path, "w") as archive:
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            told = ("json", json.dumps({"label": int(label)}).encode()) if as_json else ("cls", str(label).encode())
            for kind, content in (("png", png(image)), told):
                member = tarfile.TarInfo(f"{number:03}.{kind}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def webdataset(folder: Path) -> str:
    for number in range(3):
        part = slice(16 * number, 16 * number + 16)
        shard(folder / f"train-{number:03}.tar", SHADES[part], LABELS[part], as_json=number == 1)
    shard(folder / "test-000.tar", TEST_SHADES, TEST_LABELS)
    return f"{folder}/{{train-{{000..002}},test-000}}.tar"


IMAGES: list[Callable[[Path], Any]] = [
    *(keras, medmnist, npy_files, idx_files, hdf5, parquet_of_lists, parquet_of_images, image_folder, webdataset)
]


def table(labels: Any = Y) -> pa.Table:
    return pa.table({**{f"feature {i}": X[:, i] for i in range(5)}, "label": labels})


def npz(folder: Path) -> Path:
    np.savez(folder / "data.npz", x=X, y=Y)
    return folder / "data.npz"


def csv(folder: Path) -> str:
    pyarrow.csv.write_csv(table(), folder / "table.csv")
    return f"{folder}/table.csv:label"


def semicolons(folder: Path) -> str:
    pyarrow.csv.write_csv(table(), folder / "table.csv", pyarrow.csv.WriteOptions(delimiter=";"))
    return f"{folder}/*.csv:label"


def parquet(folder: Path) -> str:
    pq.write_table(table(), folder / "table.parquet", row_group_size=7)
    return f"{folder}/table.parquet:label"


def many_parquets(folder: Path) -> str:
    for number in range(10):
        pq.write_table(table()[6 * number : 6 * number + 6], folder / f"{number:03}.parquet")
    return f"{folder}:label"


def feather(folder: Path) -> str:
    pyarrow.feather.write_feather(table(), str(folder / "table.feather"), chunksize=7)
    return f"{folder}/table.feather:label"


def libsvm(folder: Path) -> Path:
    dump_svmlight_file(X, Y, str(folder / "data.libsvm"), zero_based=False)
    return folder / "data.libsvm"


def hdf5_by_usual_names(folder: Path) -> Path:
    with h5py.File(folder / "file.hdf5", "w") as file:
        file["x"], file["y"] = X, Y
    return folder / "file.hdf5"


NUMBERS: list[Callable[[Path], Any]] = [
    *(npz, csv, semicolons, parquet, many_parquets, feather, libsvm, hdf5_by_usual_names)
]


def frames() -> list[Any]:
    import datasets
    import pandas as pd
    import polars as pl

    columns = table().to_pydict()
    return [table(), pd.DataFrame(columns, index=np.arange(60) + 7), pl.DataFrame(columns), datasets.Dataset(table())]
