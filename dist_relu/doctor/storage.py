"""What lies on disk: compiled kernels, models, data sets."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dist_relu.core.kernel_cache import who_else_writes
from dist_relu.doctor.finding import Finding, State, size


def check_kernel_cache(folder: Path | None) -> Finding:
    """Check whether compiled kernels can be kept.  folder: where Numba keeps those of a module; None if nowhere."""
    advice = "Set NUMBA_CACHE_DIR to a folder of a local disk that you may write to, on all nodes alike."
    if folder is None:
        found = "Compiled kernels can't be kept anywhere: every process compiles for itself, which takes seconds."
        return Finding("kernels", State.WARNING, found, advice)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        found = f"Compiled kernels can't be kept in {folder}: {error.strerror or error}."
        return Finding("kernels", State.FAILURE, found, advice)
    if danger := who_else_writes(folder):
        found = f"Compiled kernels are kept in {folder}, but {danger}, and so could have training run anything."
        advice = "Take the right to write from others (chmod go-w), or set NUMBA_CACHE_DIR to a folder of your own."
        return Finding("kernels", State.WARNING, found, advice)
    if not any(folder.glob("*.nbc")):
        found = f"None compiled yet for {folder}; the first run takes some seconds longer."
        return Finding("kernels", State.OK, found)
    return Finding("kernels", State.OK, f"Compiled ones are kept in {folder}.", "", {"folder": str(folder)})


def check_disk(folders: Sequence[Path]) -> Finding:
    """Check whether models and downloads have room.  folders: where they go; they need not exist yet."""
    free = {folder: shutil.disk_usage(_existing(folder)).free for folder in folders}
    numbers = {str(folder): free_bytes for folder, free_bytes in free.items()}
    told = ", ".join(f"{size(free_bytes)} in {folder}" for folder, free_bytes in free.items())
    full = [str(folder) for folder, free_bytes in free.items() if free_bytes < 100e6]
    if full:
        advice = f"Make room in {' and '.join(full)}, or work in another folder."
        return Finding("disk", State.WARNING, f"Free: {told}. Saving a model may fail.", advice, numbers)
    return Finding("disk", State.OK, f"Free: {told}.", "", numbers)


def check_data(mnist: Path | None, mnist_url: str) -> Finding:
    """Check which data sets are here; the digits always are.  mnist: the folder of its files."""
    numbers = {"mnist": str(mnist) if mnist else None}
    if mnist:
        return Finding("data", State.OK, f"Found: digits, and mnist in {mnist}.", "", numbers)
    advice = (
        f"`--data mnist` downloads it from {mnist_url}; without network set DIST_RELU_DATA to the folder above "
        "`mnist`, on all nodes."
    )
    return Finding("data", State.NOTE, "Found: digits; mnist is not on this machine.", advice, numbers)


def _existing(folder: Path) -> Path:
    """Return the folder, or the lowest above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
