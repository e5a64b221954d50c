"""Data sets that are fetched when they are wanted, and kept; what arrives must have the digest that stands here."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from types import ModuleType
from typing import IO, cast

from dist_relu.core.untrusted import read_up_to
from dist_relu.data.cifar import CIFAR10, CIFAR100, Cifar, find_cifar
from dist_relu.errors import DataError

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""Digests of the uncompressed files, since mirrors compress them differently."""

_MOST_MNIST_BYTES = 50_000_000

CIFAR_URL = "https://www.cs.toronto.edu/~kriz/"
CIFAR_SHA256 = {
    "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "cifar-100-binary.tar.gz": "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
}
_CIFAR_ARCHIVES = {CIFAR10: "cifar-10-binary.tar.gz", CIFAR100: "cifar-100-binary.tar.gz"}
_MOST_CIFAR_BYTES = 200_000_000
"""Of a file in the archives."""


def mnist_folder() -> Path:
    """The folder of the MNIST files: that of `find_mnist`, or the user's cache, into which they are fetched."""
    folder = find_mnist()
    if folder is None:
        folder = cache_folder() / "mnist"
        _download_mnist(folder)
    return folder


def find_mnist() -> Path | None:
    """The folder of the MNIST files on this machine, $DIST_RELU_DATA/mnist or the user's cache; None without them."""
    above = os.environ.get("DIST_RELU_DATA")
    if above:
        for folder in (Path(above) / "mnist", Path(above) / "MNIST"):
            if folder.is_dir():
                return folder
    cache = cache_folder() / "mnist"
    return cache if all((cache / name).is_file() for name in MNIST_SHA256) else None


def cache_folder() -> Path:
    """Where downloaded data sets are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dist_relu"


def cifar_folder(kind: Cifar) -> Path:
    """Where the files of CIFAR-10 or CIFAR-100 lie: on this machine, or in the user's cache after a download."""
    above = os.environ.get("DIST_RELU_DATA")
    places = [Path(above) / kind.name, Path(above) / kind.name.upper(), Path(above)] if above else []
    for place in (*places, cache_folder()):
        if found := find_cifar(place, kind):
            return found[1]
    _download_cifar(kind)
    return cache_folder() / kind.folder


def _download_cifar(kind: Cifar) -> None:
    """Fetch an archive, and unpack it into the cache; its folder appears there only when it is whole."""
    name, cache = _CIFAR_ARCHIVES[kind], cache_folder()
    pooch = _pooch(kind.name, f"unpack {name} from {CIFAR_URL} and pass its folder as the data set")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        try:
            path = Path(pooch.retrieve(CIFAR_URL + name, None, fname=name, path=folder))
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except Exception as error:  # pooch passes on those of requests and urllib3
            raise DataError(
                f"{kind.name} could not be downloaded from {CIFAR_URL}: {_reason(error)}. Unpack its binary version "
                f"({name}), and pass the folder as the data set, or set DIST_RELU_DATA to the folder above "
                f"`{kind.folder}`."
            ) from None
        if found != CIFAR_SHA256[name]:
            raise DataError(f"{CIFAR_URL}{name} has SHA-256 {found}; expected {CIFAR_SHA256[name]}.")
        unpacked = Path(folder) / kind.folder
        unpacked.mkdir()
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isreg() and member.size <= _MOST_CIFAR_BYTES and Path(member.name).suffix in (".bin", ".txt"):
                    content = archive.extractfile(member)
                    assert content is not None
                    with (unpacked / Path(member.name).name).open("wb") as file:
                        shutil.copyfileobj(content, file)
        shutil.rmtree(cache / kind.folder, ignore_errors=True)
        unpacked.rename(cache / kind.folder)


def _pooch(what: str, otherwise: str) -> ModuleType:
    """The library that downloads.  what, otherwise: the data set, and what to do without it."""
    try:
        import pooch
    except ImportError:
        raise DataError(
            f"{what} is not on this machine, and downloading it needs pooch: pip install 'dist_relu[data]'. "
            f"Or {otherwise}."
        ) from None
    pooch.get_logger().setLevel("ERROR")
    return pooch  # type: ignore[no-any-return]


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _download_mnist(cache: Path) -> None:
    """Fetch the four files into `cache`; each appears there only when it is whole and has the right digest."""
    pooch = _pooch("MNIST", "put the four files into a folder and pass that as the data set")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        for name, digest in MNIST_SHA256.items():
            try:
                path = Path(pooch.retrieve(f"{MNIST_URL}{name}.gz", None, fname=f"{name}.gz", path=folder))
                with gzip.open(path) as packed:
                    content = read_up_to(cast("IO[bytes]", packed), _MOST_MNIST_BYTES)
            except Exception as error:  # pooch passes on those of requests, urllib3 and gzip
                raise DataError(
                    f"MNIST could not be downloaded from {MNIST_URL}: {_reason(error)}. Put its four files into a "
                    "folder and pass that as the data set, or set DIST_RELU_DATA to the folder above `mnist`."
                ) from None
            found = hashlib.sha256(content).hexdigest()
            if found != digest:
                raise DataError(f"{MNIST_URL}{name}.gz has SHA-256 {found} when unpacked; expected {digest}.")
            path.write_bytes(content)
            os.replace(path, cache / name)
