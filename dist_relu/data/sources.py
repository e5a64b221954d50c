"""Where data sets come from: by name, made up, from folders of IDX files, from .npz files."""

from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, cast

import numpy as np

from dist_relu.core.array_checks import check_finite, first_where
from dist_relu.core.arrays import Array
from dist_relu.core.untrusted import read_up_to
from dist_relu.data.adding import adding
from dist_relu.data.archives import Arrays, open_arrays
from dist_relu.data.dataset import Dataset, Split, checked_samples
from dist_relu.data.folders import Files, find_files, find_sets
from dist_relu.data.idx import read_idx
from dist_relu.data.splitting import held_back
from dist_relu.errors import DataError, DataWarning
from dist_relu.partition import Purpose, generator

_TEST_SHARE = 0.2
_MAX_LABEL = 2**53

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""Of the uncompressed files, since mirrors compress them differently."""


_MOST_MNIST_BYTES = 50_000_000


def load(source: str | Path, validation: float | None = None) -> Split:
    """A data set, in two parts: to train on, and to test with; and one to validate with, where that is wanted.

    source: "digits" (1797 images of 8x8, from scikit-learn), "mnist" (70,000 of 28x28), "adding:STEPS" (100,000 and
    10,000 sequences of `adding`, as many as in its paper), a folder of IDX files, or a .npz file.

    IDX files are named as those of MNIST, plain or gzipped, or as those of EMNIST; of a folder with several of its
    sets, say which: FOLDER/emnist-letters. What torchvision downloaded is found below its root. Images become rows in
    [0, 1]: bytes are divided by 255, floats must lie there, and of other types nothing tells the scale.

    A .npz file has arrays x and y, and perhaps x_test and y_test, or, as Keras writes them, x_train, y_train, x_test
    and y_test; others in it are not looked at. Without a test part a fifth of the samples is set apart, always the
    same. Here too unsigned bytes (uint8) are taken for images and become float32 in [0, 1]; other types stay as they
    are.

    Class numbers may be of any type, as long as they are whole numbers.

    validation: this share of the samples to train on is held back, always the same ones; see `held_back`.
    Raises `DataError` when there is no such data, or it can't be trained on.
    """
    data = _load(source)
    return data if validation is None else held_back(data, validation)


def _load(source: str | Path) -> Split:
    text, path = str(source), Path(source)
    name, _, rest = text.partition(":")
    if text in NAMED:
        return NAMED[text]()
    if name == "adding":
        return _load_adding(rest)
    if path.is_dir():
        return _load_idx(find_files(path))
    if path.suffix.lower() == ".npz":
        return _load_npz(path)
    if path.exists():
        raise DataError(_how_to_convert(path))
    if path.parent.is_dir() and path.name in find_sets(path.parent):
        return _load_idx(find_files(path.parent, path.name))
    if text.lower() in NAMED:
        return NAMED[text.lower()]()
    raise DataError(
        f"There is no data set {text!r}. Expected one of {', '.join(NAMED)}, adding:STEPS, a folder of IDX "
        "files, or a .npz file with x and y."
    )


def load_samples(path: Path) -> Array:
    """The samples in a .npy file, or x of a .npz file, scaled as those of `load`.  Raises `DataError`."""
    with open_arrays(path) as arrays:
        (x,) = _required(arrays, "x")
    with _naming(path):
        return checked_samples(_scaled(x))


def _how_to_convert(path: Path) -> str:
    """What to do with a file of a kind that is not read."""
    to_npz = {
        ".npy": "It holds a single array; put samples and targets into one file: np.savez('data.npz', x=x, y=y).",
        ".csv": f"Convert it: t = np.loadtxt({str(path)!r}, delimiter=','); np.savez('data.npz', x=t[:, :-1], "
        "y=t[:, -1].astype(int)) where the last column has class numbers.",
    }
    advice = to_npz.get(path.suffix.lower(), "Put its arrays into one: np.savez('data.npz', x=x, y=y).")
    return f"{path} is there, but of a kind that is not read; expected a folder of IDX files or a .npz file. {advice}"


def _load_adding(steps: str) -> Split:
    if not steps.isdecimal() or int(steps) < 2:
        raise DataError(f"adding:{steps}: expected a whole number of steps, at least 2, such as adding:150.")
    return Split(adding(100_000, int(steps), seed=0), adding(10_000, int(steps), seed=1))


def _load_digits() -> Split:
    """The digits, from the file that scikit-learn brings: its own loader takes a second to import."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError("The digits come from scikit-learn. Install it: pip install 'dist_relu[data]'.")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        table = np.loadtxt(path, delimiter=",")
    except (OSError, ValueError) as error:
        raise DataError(f"The digits come from scikit-learn, whose file of them can't be read: {error}.") from error
    return _set_apart((table[:, :-1] / 16).astype(np.float32), table[:, -1].astype(np.int64), (8, 8, 1))


def _load_mnist() -> Split:
    folder = find_mnist()
    if folder is None:
        folder = _mnist_cache()
        _download_mnist(folder)
    return _load_idx(find_files(folder))


def find_mnist() -> Path | None:
    """The folder of the MNIST files on this machine, $DIST_RELU_DATA/mnist or the user's cache; None without them."""
    above = os.environ.get("DIST_RELU_DATA")
    if above:
        for folder in (Path(above) / "mnist", Path(above) / "MNIST"):
            if folder.is_dir():
                return folder
    cache = _mnist_cache()
    return cache if all((cache / name).is_file() for name in MNIST_SHA256) else None


def _mnist_cache() -> Path:
    return cache_folder() / "mnist"


def cache_folder() -> Path:
    """Where downloaded data sets are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dist_relu"


def _download_mnist(cache: Path) -> None:
    """Fetch the four files into `cache`; each appears there only when it is whole and has the right digest."""
    try:
        import pooch
    except ImportError:
        raise DataError(
            "MNIST is not on this machine, and downloading it needs pooch: pip install 'dist_relu[data]'. "
            "Or put the four files into a folder and pass that as the data set."
        ) from None
    pooch.get_logger().setLevel("ERROR")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        for name, digest in MNIST_SHA256.items():
            try:
                path = Path(pooch.retrieve(f"{MNIST_URL}{name}.gz", None, fname=f"{name}.gz", path=folder))
                with gzip.open(path) as packed:
                    content = read_up_to(cast("IO[bytes]", packed), _MOST_MNIST_BYTES)
            except Exception as error:  # pooch passes on those of requests, urllib3 and gzip
                reason = (str(error) or type(error).__name__).splitlines()[0]
                raise DataError(
                    f"MNIST could not be downloaded from {MNIST_URL}: {reason}. Put its four files into a folder "
                    "and pass that as the data set, or set DIST_RELU_DATA to the folder above `mnist`."
                ) from None
            found = hashlib.sha256(content).hexdigest()
            if found != digest:
                raise DataError(f"{MNIST_URL}{name}.gz has SHA-256 {found} when unpacked; expected {digest}.")
            path.write_bytes(content)
            os.replace(path, cache / name)


def _load_idx(files: Files) -> Split:
    parts = []
    for part in ("train", "test"):
        images, labels = read_idx(files[part, "images"]), read_idx(files[part, "labels"])
        if images.ndim != 3 or labels.ndim != 1:
            raise DataError(
                f"{files[part, 'images'].parent} holds {part} images of shape {images.shape} and labels of shape "
                f"{labels.shape}; expected (N, height, width) and (N,)."
            )
        x = _pixels(files[part, "images"], images).reshape(len(images), images.shape[1] * images.shape[2])
        y = _class_numbers(files[part, "labels"], labels)
        with _naming(files[part, "images"]):
            parts.append(Dataset(x, y, (images.shape[1], images.shape[2], 1)))
    return Split(*parts)


def _pixels(path: Path, images: Array) -> Array:
    """Images in [0, 1]."""
    if images.dtype == np.uint8:
        return _scaled(images)
    if images.dtype.kind != "f":
        raise DataError(
            f"{path} holds images of {images.dtype}, whose scale nothing tells; expected bytes, or floats in [0, 1]. "
            "Numbers of any other scale are read from .npz files, and stay as they are there."
        )
    check_finite(str(path), images)
    if images.size and not 0 <= images.min() <= images.max() <= 1:
        raise DataError(
            f"{path} holds images of {images.dtype} from {images.min():g} to {images.max():g}; expected bytes, or "
            "floats in [0, 1]. Numbers of any other scale are read from .npz files, and stay as they are there."
        )
    return images


def _class_numbers(path: Path, labels: Array) -> Array:
    """Labels as int64."""
    if labels.dtype.kind == "f":
        wrong = ~(np.abs(labels) < _MAX_LABEL) | (np.floor(labels) != labels)  # NaN too
        if wrong.any():
            where = first_where(wrong)
            raise DataError(f"{path}: label {where[0]} is {labels[where]}; expected class numbers.")
    return labels.astype(np.int64)


def _load_npz(path: Path) -> Split:
    with open_arrays(path) as arrays:
        keras = "x" not in arrays.names and "x_train" in arrays.names
        train = ("x_train", "y_train") if keras else ("x", "y")
        x, y = _required(arrays, *train)
        has_test = [name in arrays.names for name in ("x_test", "y_test")]
        if any(has_test) and not all(has_test):
            raise DataError(f"{path} has only one of x_test and y_test; expected both or neither.")
        test = _required(arrays, "x_test", "y_test") if all(has_test) else None
    if x.dtype == np.uint8 and x.size and x.max() < 128:
        warnings.warn(
            f"{path}: {train[0]} holds bytes from {x.min()} to {x.max()}. Bytes of files are taken for images and "
            "divided by 255; numbers that are to stay as they are must be of another type, such as float32 or int32.",
            DataWarning,
            stacklevel=3,
        )
    if test is not None and (x.dtype == np.uint8) != (test[0].dtype == np.uint8):
        raise DataError(
            f"{path} has samples of {x.dtype} to train on, but of {test[0].dtype} to test with. Bytes become numbers "
            "in [0, 1], others stay as they are; expected the same type."
        )
    with _naming(path):
        whole = _images(x, y)
        return _set_apart(whole.x, whole.y, whole.image_shape) if test is None else Split(whole, _images(*test))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let the errors of what was read from a file begin with its name."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _required(arrays: Arrays, *names: str) -> list[Array]:
    missing = [name for name in names if name not in arrays.names]
    if missing:
        held = ", ".join(sorted(arrays.names)) or "nothing"
        raise DataError(
            f"{arrays.path} has no array {' or '.join(missing)}; it holds {held}. Expected {' and '.join(names)}."
        )
    return [arrays.read(name) for name in names]


def _images(x: Array, y: Array) -> Dataset:
    """A data set of arrays from a file. Bytes of three dimensions are images in grey."""
    return Dataset(_scaled(x), y, (*x.shape[1:], 1) if x.dtype == np.uint8 and x.ndim == 3 else None)


def _scaled(x: Array) -> Array:
    """Samples from a file: bytes are images, and become float32 from 0 to 1."""
    return np.multiply(x, np.float32(1 / 255), dtype=np.float32) if x.dtype == np.uint8 else x


def _set_apart(x: Array, y: Array, image_shape: tuple[int, int, int] | None) -> Split:
    """Set a fifth of the samples apart for testing; which ones depends on their number alone."""
    num_test = max(round(_TEST_SHARE * len(x)), 1)
    if len(x) < 2:
        raise DataError(f"{len(x)} sample can't be split into samples to train on and samples to test with.")
    order = generator(0, Purpose.DATA_SPLIT).permutation(len(x))
    test, train = order[:num_test], order[num_test:]
    return Split(Dataset(x[train], y[train], image_shape), Dataset(x[test], y[test], image_shape))


NAMED: dict[str, Callable[[], Split]] = {"digits": _load_digits, "mnist": _load_mnist}
