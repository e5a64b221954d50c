"""Encoded images as arrays: PNG, JPEG and what else Pillow decodes, all of one size."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import IO, Any, NamedTuple

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.untrusted import reading
from dist_relu.data.idx import check_room
from dist_relu.errors import DataError

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
_GREY = {"1", "L"}
_DEEP = ("I", "F")
"""How the names of modes begin whose pixels have more than a byte."""


class Encoded(NamedTuple):
    """An image that is still to be decoded.  name: of it, for messages.  open: a stream of its content."""

    name: str
    open: Callable[[], IO[bytes]]


def decoded(images: Sequence[Encoded]) -> Array:
    """Images as bytes, (N, height, width, channels): one channel where all of them are grey, otherwise three.

    Raises `DataError` for what is no image, and unless all have one size: which is asked of them before any is decoded.
    """
    size, channels = _form(images)
    pixels_of_one = size[0] * size[1] * channels
    check_room(images[0].name, (len(images) + 4) * pixels_of_one)
    pixels = np.empty((len(images), size[1], size[0], channels), np.uint8)
    for number, each in enumerate(images):
        with reading(each.name, DataError, "an image"), each.open() as file, _opened(each.name, file) as image:
            if image.size != size:
                raise DataError(f"{each.name} has changed while it was read.")
            pixels[number] = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(pixels.shape[1:])
    return pixels


def _form(images: Sequence[Encoded]) -> tuple[tuple[int, int], int]:
    """Width and height of all images, and how many channels it takes to hold them."""
    first: tuple[int, int] | None = None
    channels = 1
    for each in images:
        with reading(each.name, DataError, "an image"), each.open() as file, _opened(each.name, file) as image:
            size, mode = image.size, image.mode
        first = first or size
        if size != first:
            raise DataError(
                f"{images[0].name} has {first[0]} x {first[1]} pixels, but {each.name} has {size[0]} x {size[1]}; "
                f"expected one size for all. Make them so: Image.open(path).resize({first}).save(path) for each."
            )
        channels = channels if mode in _GREY else 3
    assert first is not None
    return first, channels


def _opened(name: str, file: IO[bytes]) -> Any:
    """An image of which only the header is read.  Raises `DataError` where its pixels have more than bytes."""
    library = _pillow()
    with warnings.catch_warnings(action="error", category=library.DecompressionBombWarning):
        image = library.open(file, formats=_FORMATS)
    if image.mode.startswith(_DEEP):
        raise DataError(
            f"{name} has pixels of more than 8 bits (mode {image.mode}); expected 8. Convert it, or put the pixels "
            "into an array: np.savez('data.npz', x=x, y=y)."
        )
    return image


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError:
        raise DataError("Images are decoded by Pillow: pip install 'dist_relu[images]'.") from None
    return Image  # type: ignore[no-any-return]
