"""Folders of images, in which each folder is a class: CLASS/IMAGE, or train/CLASS/IMAGE beside test and val."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.untrusted import reading
from dist_relu.data.dataset import Split
from dist_relu.data.images import Encoded, decoded
from dist_relu.data.parts import Part, PartName, joined, naming, part_of
from dist_relu.errors import DataError

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}


def is_image(path: Path) -> bool:
    """Whether the name of a file says that it is an image."""
    return path.suffix.lower() in _SUFFIXES


def holds_images(folder: Path) -> bool:
    """Whether there are images in folders below a folder, one or two levels down."""
    return any(is_image(path) for pattern in ("*/*", "*/*/*") for path in folder.glob(pattern))


def load_image_folder(folder: Path) -> Split:
    """Images (N, height, width, channels) in [0, 1]; the folders that they lie in are their classes, sorted by name.

    Grey images have a channel, others three. Where folders are called train, test, val or the like, and have folders
    in them, these are the classes.  Raises `DataError`, also for images of several sizes.
    """
    parts: dict[PartName, list[Path]] = {}
    for each in _folders(folder):
        part = part_of(each.name)
        if part is not None and _folders(each):
            parts.setdefault(part, []).append(each)
    if parts and ("train" not in parts or any(len(each) > 1 for each in parts.values())):
        told = ", ".join(sorted(each.name for part in parts.values() for each in part))
        raise DataError(f"{folder} holds the folders {told}; expected train, and perhaps test and val, one of each.")
    found = {part: _labelled(place) for part, (place,) in (parts or {"train": [folder]}).items()}
    with reading(folder, DataError, "a folder of images"):
        pixels = read_images([path for paths, _ in found.values() for path in paths])
    starts = np.cumsum([0, *(len(paths) for paths, _ in found.values())])
    with naming(folder):
        return joined(
            {
                part: Part(pixels[start : start + len(labels)], np.array(labels), pixels.shape[1:])
                for start, (part, (_, labels)) in zip(starts, found.items(), strict=False)
            }
        )


def read_images(paths: Sequence[Path]) -> Array:
    """Images as bytes, (N, height, width, channels), of which all have one size.  Raises `DataError`."""
    return decoded([Encoded(str(path), partial(_open, path)) for path in paths])


def _labelled(place: Path) -> tuple[list[Path], list[str]]:
    """All images in the folders of a place, in the order of their names, and the names of their folders."""
    images: list[Path] = []
    labels: list[str] = []
    for folder in _folders(place):
        here = sorted(path for path in folder.iterdir() if is_image(path))
        if not here:
            raise DataError(
                f"{folder} holds no images, so there is nothing of the class {folder.name}. Expected files such as "
                ".png or .jpg in it; or take the folder away."
            )
        images += here
        labels += [folder.name] * len(here)
    if not images:
        raise DataError(f"{place} holds no folders of images; expected one for each class.")
    return images, labels


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


def _folders(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
