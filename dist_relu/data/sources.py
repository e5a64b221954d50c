"""Where data sets come from: by name, made up, or from files and folders, whose names tell who reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from glob import glob, has_magic
from pathlib import Path

from dist_relu.data import hdf5_files, libsvm_files
from dist_relu.data.adding import adding
from dist_relu.data.cifar import CIFAR10, CIFAR100, find_cifar, load_cifar
from dist_relu.data.dataset import Split
from dist_relu.data.digits import load_digits
from dist_relu.data.downloads import cifar_folder, mnist_folder
from dist_relu.data.folders import find_files, find_sets, holds_sets
from dist_relu.data.hdf5_files import load_hdf5
from dist_relu.data.idx_sets import load_idx
from dist_relu.data.image_folders import holds_images, load_image_folder
from dist_relu.data.libsvm_files import load_libsvm
from dist_relu.data.numpy_files import load_npy_folder, load_npz
from dist_relu.data.splitting import held_back
from dist_relu.data.table_files import is_table, load_tables
from dist_relu.data.webdataset import expanded, load_webdataset
from dist_relu.errors import DataError


def load(source: str | Path, validation: float | None = None) -> Split:
    """A data set, in parts: to train on, to test with, and to validate with, where there is such a part or should be.

    source: the name of one, a file, or a folder:

    - "digits" (1797 images of 8x8 that come with the package); "mnist" (70,000 of 28x28), "cifar10" and "cifar100"
      (60,000 of 32x32 in colour), which are looked for in $DIST_RELU_DATA and the user's cache, then downloaded;
      "adding:STEPS" (100,000 and 10,000 sequences of `adding`, as many as in its paper).
    - A folder of IDX files, named as those of MNIST, plain or gzipped, or as those of EMNIST; of a folder with several
      of its sets, say which: FOLDER/emnist-letters. What torchvision downloaded is found below its root. Images become
      rows: bytes are divided by 255, floats must lie in [0, 1], and of other types nothing tells the scale.
    - A folder with CIFAR's binary version.
    - A .npz file, a folder of .npy files or an HDF5 file, with arrays x and y, X_train, y_train, X_test and y_test,
      train_images, train_labels, val_images (MedMNIST) and the like, see `find_pairs`; others in it are not looked at.
      Of an HDF5 file also "file.h5:SAMPLES,TARGETS", with the names of its datasets.
    - Tables with the column to predict, or several: "table.csv:label", "table.parquet:a,b", "table.feather:label"; many
      files are one table, as "folder:label" or "folder/*.parquet:label".
    - A file of LIBSVM's text, .libsvm or .svm.
    - A folder of images in folders, of which each is a class; or in train, test and val below it.
    - WebDataset's tar files: a folder of them, or "train-{000..009}.tar", or "*.tar".

    Weights of samples are arrays sample_weight, sample_weight_test and sample_weight_val, or a column sample_weight.
    Without a test part a fifth of the samples is set apart, always the same. Unsigned bytes (uint8) in arrays are taken
    for images, too, and become float32 in [0, 1]; other types stay as they are. Whole numbers are classes, of whatever
    type in IDX files; names are classes, too, which keep them.

    validation: this share of the samples to train on is held back, always the same ones; see `held_back`.
    Raises `DataError` when there is no such data, or it can't be trained on.
    """
    data = _load(source)
    return data if validation is None else held_back(data, validation)


def _load(source: str | Path) -> Split:
    text = str(source)
    name, _, rest = text.partition(":")
    if text in NAMED:
        return NAMED[text]()
    if name == "adding":
        return _load_adding(rest)
    where, paths, columns = _find(text)
    if len(paths) == 1 and paths[0].is_dir():
        return _load_folder(paths[0], columns)
    if paths:
        return _load_files(where, paths, columns)
    path = Path(text)
    if path.parent.is_dir() and path.name in find_sets(path.parent):
        return load_idx(find_files(path.parent, path.name))
    if text.lower() in NAMED:
        return NAMED[text.lower()]()
    raise DataError(
        f"There is no data set {text!r}. Expected one of {', '.join(NAMED)}, adding:STEPS, or a file or folder: a "
        "folder of IDX files or images, .npz, HDF5, a table with the column to predict (table.csv:COLUMN), ..."
    )


def _find(text: str) -> tuple[Path, list[Path], str | None]:
    """What is named in messages, the files or folders that a text stands for, and the columns behind a colon, if any.

    A file of that very name comes first, then patterns with * or braces; a name may have colons of its own.
    """
    ends = [len(text), *(place for place, one in enumerate(text) if one == ":")]
    for end in ends:
        head = text[:end]
        paths = [path for name in expanded(head) for path in _matching(name)]
        if paths:
            return Path(head), paths, None if end == len(text) else text[end + 1 :]
    return Path(text), [], None


def _matching(name: str) -> list[Path]:
    """The file or folder of this name, or those that a pattern stands for, sorted."""
    if not name or Path(name).exists():
        return [Path(name)] if name else []
    return sorted(map(Path, glob(name))) if has_magic(name) else []


def _load_files(where: Path, paths: Sequence[Path], columns: str | None) -> Split:
    """The files that a source stands for; only of tables and of tar files there may be several."""
    if all(map(is_table, paths)):
        return load_tables(where, paths, columns)
    if columns is None and all(path.suffix.lower() == ".tar" for path in paths):
        return load_webdataset(where, paths)
    path, suffix = paths[0], paths[0].suffix.lower()
    if len(paths) > 1:
        raise DataError(
            f"{where} stands for {len(paths):,} files, of {path.name} and the like; expected one, or tables."
        )
    if suffix in hdf5_files.SUFFIXES:
        return load_hdf5(path, columns)
    if columns is not None:
        raise DataError(f"{path}: only tables and HDF5 files have columns to choose, not {suffix or 'such files'}.")
    if suffix == ".npz":
        return load_npz(path)
    if suffix in libsvm_files.SUFFIXES:
        return load_libsvm(path)
    raise DataError(_how_to_convert(path))


def _load_folder(folder: Path, columns: str | None) -> Split:
    """A folder, whose files tell what it is.  columns: of the tables in it."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    tables = [path for path in files if is_table(path)]
    if columns is not None:
        if not tables:
            raise DataError(
                f"{folder} holds no tables of which {columns} could be a column: no .csv, .parquet, .feather."
            )
        return load_tables(folder, tables, columns)
    shards = [path for path in files if path.suffix == ".tar"]
    cifar = find_cifar(folder)
    if cifar and not holds_sets(folder):
        return load_cifar(*cifar)
    readers: list[tuple[bool, Callable[[], Split]]] = [
        (holds_sets(folder), lambda: load_idx(find_files(folder))),
        (any(path.suffix == ".npy" for path in files), lambda: load_npy_folder(folder)),
        (bool(shards), lambda: load_webdataset(folder, shards)),
        (bool(tables), lambda: load_tables(folder, tables, None)),
        (holds_images(folder), lambda: load_image_folder(folder)),
    ]
    read = next((read for is_it, read in readers if is_it), None)
    if read is None:
        raise DataError(
            f"{folder} holds nothing that is read: no IDX files, .npy files, tables, tar files, nor folders of images. "
            "For MNIST it has no file train-images-idx3-ubyte."
        )
    return read()


def _how_to_convert(path: Path) -> str:
    """What to do with a file of a kind that is not read."""
    advice = "Put its arrays into one: np.savez('data.npz', x=x, y=y)."
    if path.suffix.lower() == ".npy":
        advice = "It holds a single array; pass a folder with x.npy and y.npy, or np.savez('data.npz', x=x, y=y)."
    return f"{path} is there, but of a kind that is not read; see `dist_relu.data.load` for those that are. {advice}"


def _load_adding(steps: str) -> Split:
    if not steps.isdecimal() or int(steps) < 2:
        raise DataError(f"adding:{steps}: expected a whole number of steps, at least 2, such as adding:150.")
    return Split(adding(100_000, int(steps), seed=0), adding(10_000, int(steps), seed=1))


def _load_mnist() -> Split:
    return load_idx(find_files(mnist_folder()))


NAMED: dict[str, Callable[[], Split]] = {
    "digits": load_digits,
    "mnist": _load_mnist,
    "cifar10": lambda: load_cifar(CIFAR10, cifar_folder(CIFAR10)),
    "cifar100": lambda: load_cifar(CIFAR100, cifar_folder(CIFAR100)),
}
