"""Data sets that are fetched when they are wanted, and kept; what arrives must have the digest that stands here."""

from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
from pathlib import Path
from typing import IO, cast

from dist_relu.core.untrusted import read_up_to
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
