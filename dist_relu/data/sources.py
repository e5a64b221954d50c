"""Where data sets come from: by name, made up, from folders of IDX files, from .npz files."""

from __future__ import annotations

import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dist_relu.arrays import Array
from dist_relu.data.adding import adding
from dist_relu.data.dataset import Dataset, Split, split
from dist_relu.data.idx import read_idx
from dist_relu.errors import DataError
from dist_relu.partition import Purpose, generator

_TEST_SHARE = 0.2

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""Of the uncompressed files, since mirrors compress them differently."""


def load(source: str | Path) -> Split:
    """A data set, in two parts: to train on, and to test with.

    source: "digits" (1797 images of 8x8, from scikit-learn), "mnist" (70,000 of 28x28), "adding:STEPS" (100,000 and
    10,000 sequences of `adding`, as many as in its paper), a folder with the four IDX files of MNIST or of a set of
    that form, or a .npz file with arrays `x` and `y`, and perhaps `x_test` and `y_test`; without those a fifth of the
    samples is set apart, always the same. Images become rows of float32 in [0, 1].

    Raises `DataError` when there is no such data, or it can't be trained on.
    """
    if source in NAMED:
        return NAMED[str(source)]()
    name, _, rest = str(source).partition(":")
    if name == "adding":
        return _load_adding(rest)
    path = Path(source)
    if path.is_dir():
        return _load_idx_folder(path)
    if path.suffix == ".npz":
        return _load_npz(path)
    raise DataError(
        f"There is no data set {str(source)!r}. Expected one of {', '.join(NAMED)}, adding:STEPS, a folder of IDX "
        "files, or a .npz file with x and y."
    )


def _load_adding(steps: str) -> Split:
    if not steps.isdecimal() or int(steps) < 2:
        raise DataError(f"adding:{steps}: expected a whole number of steps, at least 2, such as adding:150.")
    return split(adding(100_000, int(steps), seed=0), adding(10_000, int(steps), seed=1))


def _load_digits() -> Split:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError("The digits come from scikit-learn. Install it: pip install 'dist_relu[data]'.") from None
    x, y = load_digits(return_X_y=True)
    return _set_apart((x / 16).astype(np.float32), y, (8, 8, 1))


def _load_mnist() -> Split:
    folder = find_mnist()
    if folder is None:
        folder = _mnist_cache()
        _download_mnist(folder)
    return _load_idx_folder(folder)


def find_mnist() -> Path | None:
    """The folder of the MNIST files on this machine, $DIST_RELU_DATA/mnist or the user's cache; None without them."""
    folder = os.environ.get("DIST_RELU_DATA")
    if folder and (Path(folder) / "mnist").is_dir():
        return Path(folder) / "mnist"
    cache = _mnist_cache()
    return cache if all((cache / name).is_file() for name in _MNIST_SHA256) else None


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
        for name, digest in _MNIST_SHA256.items():
            try:
                path = pooch.retrieve(
                    f"{MNIST_URL}{name}.gz",
                    None,
                    fname=f"{name}.gz",
                    path=folder,
                    processor=pooch.Decompress(name=name),
                )
            except Exception as error:  # pooch passes on those of requests, urllib3 and gzip
                reason = (str(error) or type(error).__name__).splitlines()[0]
                raise DataError(
                    f"MNIST could not be downloaded from {MNIST_URL}: {reason}. Put its four files into a folder "
                    "and pass that as the data set, or set DIST_RELU_DATA to the folder above `mnist`."
                ) from None
            found = pooch.file_hash(path)
            if found != digest:
                raise DataError(f"{MNIST_URL}{name}.gz has SHA-256 {found} when unpacked; expected {digest}.")
            os.replace(path, cache / name)


def _load_idx_folder(folder: Path) -> Split:
    parts = []
    for prefix in ("train", "t10k"):
        images = read_idx(_idx_file(folder, f"{prefix}-images-idx3-ubyte"))
        labels = read_idx(_idx_file(folder, f"{prefix}-labels-idx1-ubyte"))
        if images.ndim != 3 or labels.ndim != 1:
            raise DataError(
                f"{folder} holds {prefix} images of shape {images.shape} and labels of shape {labels.shape}; "
                "expected (N, height, width) and (N,)."
            )
        rows = images.reshape(len(images), images.shape[1] * images.shape[2])
        x = np.multiply(rows, np.float32(1 / 255), dtype=np.float32)
        parts.append(Dataset(x, labels.astype(np.int64), (images.shape[1], images.shape[2], 1)))
    return split(*parts)


def _idx_file(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz", folder / name.replace("-idx", ".idx")):
        if candidate.is_file():
            return candidate
    raise DataError(f"{folder} has no file {name} or {name}.gz.")


def _load_npz(path: Path) -> Split:
    arrays = read_numpy(path)
    missing = {"x", "y"} - arrays.keys()
    if missing:
        raise DataError(
            f"{path} has no array {' or '.join(sorted(missing))}; it holds {', '.join(sorted(arrays)) or 'nothing'}. "
            "Expected x and y."
        )
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise DataError(f"{path} has only one of x_test and y_test; expected both or neither.")
    if "x_test" in arrays:
        return split(Dataset(arrays["x"], arrays["y"]), Dataset(arrays["x_test"], arrays["y_test"]))
    whole = Dataset(arrays["x"], arrays["y"])
    return _set_apart(whole.x, whole.y, None)


def read_numpy(path: Path) -> dict[str, Array]:
    """The arrays of a .npz file by name, or that of a .npy file as "x".  Raises `DataError`."""
    try:
        with path.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"x": loaded}
            return {name: _member(path, loaded, name) for name in loaded.files}
    except DataError:
        raise
    except ValueError:
        raise DataError(f"{path} can't be read: it is no .npy or .npz file of numbers.") from None
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path} can't be read: {error}.") from None


def _member(path: Path, file: np.lib.npyio.NpzFile, name: str) -> Array:
    try:
        array: Array = file[name]
    except ValueError:
        raise DataError(f"{path}: {name} is an array of Python objects; expected numbers.") from None
    return array


def _set_apart(x: Array, y: Array, image_shape: tuple[int, int, int] | None) -> Split:
    """Set a fifth of the samples apart for testing; which ones depends on their number alone."""
    num_test = max(round(_TEST_SHARE * len(x)), 1)
    if len(x) < 2:
        raise DataError(f"{len(x)} sample can't be split into samples to train on and samples to test with.")
    order = generator(0, Purpose.DATA_SPLIT).permutation(len(x))
    test, train = order[:num_test], order[num_test:]
    return split(Dataset(x[train], y[train], image_shape), Dataset(x[test], y[test], image_shape))


NAMED: dict[str, Callable[[], Split]] = {"digits": _load_digits, "mnist": _load_mnist}
