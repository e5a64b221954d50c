"""One data set in every format that is read, trained on one to four workers: python scripts/formats.py

The digits, in the order of their classes, as bytes where a format has images, and as the same numbers from 0 to 1 where
it has numbers. Prints a table: format, files, their size, rows, and the digest of the model, which is the same for all.
"""

from __future__ import annotations

import io
import sys
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
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

import dist_relu as dr
from dist_relu import nn

_ORDER = np.argsort(dr.data.load("digits").train.y, kind="stable")
LABELS = dr.data.load("digits").train.y[_ORDER]
SHADES = (dr.data.load("digits").train.x[_ORDER] * 240).round().astype(np.uint8).reshape(-1, 8, 8)
NUMBERS = SHADES.reshape(-1, 64) * np.float32(1 / 255)
FEW = slice(0, 20)
"""Something to test with; only what is trained on is compared."""


def table(rows: slice = slice(None), *, as_lists: bool = False) -> pa.Table:
    if as_lists:
        pixels = pa.array(list(SHADES.reshape(-1, 64)[rows]), pa.list_(pa.uint8(), 64))
        return pa.table({"pixels": pixels, "label": LABELS[rows]})
    return pa.table({**{f"pixel{i}": NUMBERS[rows, i] for i in range(64)}, "label": LABELS[rows]})


def npz(folder: Path) -> Path:
    np.savez(folder / "a.npz", x_train=SHADES, y_train=LABELS, x_test=SHADES[FEW], y_test=LABELS[FEW])
    return folder / "a.npz"


def medmnist(folder: Path) -> Path:
    some: dict[str, Any] = {f"{part}_images": SHADES[FEW] for part in ("val", "test")}
    some |= {f"{part}_labels": LABELS[FEW].reshape(-1, 1) for part in ("val", "test")}
    np.savez_compressed(folder / "a.npz", train_images=SHADES, train_labels=LABELS.reshape(-1, 1), **some)
    return folder / "a.npz"


def npy(folder: Path) -> Path:
    for name, array in {"X_train": SHADES, "y_train": LABELS, "X_test": SHADES[FEW], "y_test": LABELS[FEW]}.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def idx(folder: Path) -> Path:
    for prefix, rows in (("train", slice(None)), ("t10k", FEW)):
        for kind, array in (("images-idx3", SHADES[rows]), ("labels-idx1", LABELS[rows].astype(np.uint8))):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (folder / f"{prefix}-{kind}-ubyte").write_bytes(header + array.tobytes())
    return folder


def hdf5(folder: Path) -> str:
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("images", data=SHADES, chunks=(100, 8, 8), compression="gzip")
        file["labels"], file["more"], file["theirs"] = LABELS, SHADES[FEW], LABELS[FEW]
    return f"{folder}/a.h5:images,labels,more,theirs"


def parquet(num_files: int, *, as_lists: bool = False) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        ends = np.linspace(0, len(LABELS), num_files + 1).astype(int)
        for number in range(num_files):
            rows = slice(ends[number], ends[number + 1])
            pq.write_table(table(rows, as_lists=as_lists), folder / f"train-{number:05}.parquet")
        pq.write_table(table(FEW, as_lists=as_lists), folder / "test.parquet")
        return f"{folder}:label"

    return write


def feather(folder: Path) -> str:
    pyarrow.feather.write_feather(table(), str(folder / "train.feather"), chunksize=100)
    pyarrow.feather.write_feather(table(FEW), str(folder / "test.feather"))
    return f"{folder}:label"


def csv(folder: Path) -> str:
    pyarrow.csv.write_csv(table(), folder / "train.csv")
    pyarrow.csv.write_csv(table(FEW), folder / "test.csv")
    return f"{folder}/*.csv:label"


def libsvm(folder: Path) -> Path:
    dump_svmlight_file(NUMBERS.astype(np.float64), LABELS, str(folder / "a.libsvm"), zero_based=False)
    dump_svmlight_file(NUMBERS[FEW].astype(np.float64), LABELS[FEW], str(folder / "a.libsvm.t"), zero_based=False)
    return folder / "a.libsvm"


def png(shades: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(shades).save(stream, "PNG")
    return stream.getvalue()


def images(folder: Path) -> Path:
    for part, rows in (("train", slice(None)), ("test", FEW)):
        for number, (shades, label) in enumerate(zip(SHADES[rows], LABELS[rows], strict=True)):
            path = folder / part / str(label) / f"{number:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(shades))
    return folder


def webdataset(folder: Path) -> str:
    for name, rows in (("train-0", slice(0, 800)), ("train-1", slice(800, None)), ("test-0", FEW)):
        with tarfile.open(folder / f"{name}.tar", "w") as archive:
            for number, (shades, label) in enumerate(zip(SHADES[rows], LABELS[rows], strict=True)):
                for kind, content in (("png", png(shades)), ("cls", str(label).encode())):
                    member = tarfile.TarInfo(f"{number:05}.{kind}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return f"{folder}/{{train-{{0..1}},test-0}}.tar"


FORMATS: dict[str, Callable[[Path], Any]] = {
    "npz, as Keras has it": npz,
    "npz, as MedMNIST has it": medmnist,
    ".npy": npy,
    "IDX": idx,
    "HDF5": hdf5,
    "Parquet": parquet(1),
    "Parquet, 10 files": parquet(10),
    "Parquet, 1,000 files": parquet(1000),
    "Parquet, lists of bytes": parquet(1, as_lists=True),
    "Feather": feather,
    "CSV": csv,
    "LIBSVM": libsvm,
    "folders of PNG": images,
    "WebDataset": webdataset,
}


def main() -> None:
    digests = set()
    print("| format | files | kB | rows | digest on 1, 2, 3, 4 workers |\n|---|---|---|---|---|")
    with ExitStack() as stack:
        coordinators = [stack.enter_context(dr.start(workers, backend="local")) for workers in (1, 2, 3, 4)]
        for name, write in FORMATS.items():
            with tempfile.TemporaryDirectory() as folder:
                data = dr.data.load(write(Path(folder))).train
                found = {digest(data, coordinator) for coordinator in coordinators}
                files = [path for path in Path(folder).rglob("*") if path.is_file()]
                size_kb = sum(path.stat().st_size for path in files) / 1000
            digests |= found
            told = ", ".join(sorted(found))
            print(f"| {name} | {len(files):,} | {size_kb:,.0f} | {len(data):,} | {told} |", flush=True)
    sys.exit(f"There are {len(digests)} digests." if len(digests) > 1 else None)


def digest(data: dr.Dataset, coordinator: dr.Coordinator) -> str:
    model = nn.Sequential(nn.Flatten(), nn.Dense(64), nn.ReLU(), nn.Dense(10))
    coordinator.fit(model, data, dr.optim.SGD(0.1, momentum=0.9), epochs=3, batch_size=64, shards=4, seed=1)
    return model.sha256()[:16]


if __name__ == "__main__":
    main()
