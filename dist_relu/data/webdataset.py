"""WebDataset: shards that are tar files, in which the files of a sample follow one another.

They share all of their names but the suffix: 000123.jpg and 000123.cls are an image and its class, a number or a name;
or its class stands in 000123.json, under "label".
https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.untrusted import parse_json, printable, read_exactly, reading
from dist_relu.data.dataset import Split
from dist_relu.data.idx import check_room
from dist_relu.data.images import Encoded, decoded
from dist_relu.data.parts import Part, PartName, by_part, joined, naming
from dist_relu.errors import DataError

_IMAGES = {"png", "jpg", "jpeg", "webp", "bmp", "ppm", "pgm", "gif", "tif", "tiff"}
_LABELS = ("cls", "json")
_KEYS = ("label", "cls", "class")
_MOST_LABEL_BYTES = 100_000
_MOST_SHARDS = 100_000
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{},]+(?:,[^{},]+)+)\}")


def expanded(pattern: str) -> list[str]:
    """The names that braces stand for, as in a shell: train-{000..009}.tar, {a,b}.tar.  Raises `DataError` for many."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    if match[3]:
        choices = match[3].split(",")
    else:
        first, last = int(match[1]), int(match[2])
        if abs(last - first) >= _MOST_SHARDS:
            raise DataError(f"{pattern} stands for more than {_MOST_SHARDS:,} files.")
        choices = [f"{n:0{len(match[1])}}" for n in range(first, last + 1)]
    head, tail = pattern[: match.start()], pattern[match.end() :]
    names = list(dict.fromkeys(name for choice in choices for name in expanded(head + choice + tail)))
    if len(names) > _MOST_SHARDS:
        raise DataError(f"{pattern} stands for more than {_MOST_SHARDS:,} files.")
    return names


def load_webdataset(where: Path, shards: Sequence[Path]) -> Split:
    """Images (N, height, width, channels) in [0, 1] and their classes, in the order of shards and of samples in them.

    Shards called train..., test... and val... are parts.  Raises `DataError`.
    """
    samples = {
        part: [each for path in paths for each in _samples(path)] for part, paths in by_part(where, shards).items()
    }
    with reading(where, DataError, "a WebDataset"):
        pixels = decoded([each.image for part in samples.values() for each in part])
    parts: dict[PartName, Part] = {}
    first = 0
    for part, found in samples.items():
        parts[part] = Part(pixels[first : first + len(found)], _labels(where, found), pixels.shape[1:])
        first += len(found)
    with naming(where):
        return joined(parts)


@final
class _Sample:
    """A sample whose files come one after another.  name: its shard and key."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._image: bytes | None = None
        self._label: int | str | None = None

    @property
    def image(self) -> Encoded:
        assert self._image is not None
        return Encoded(self.name, partial(BytesIO, self._image))

    @property
    def label(self) -> int | str:
        assert self._label is not None
        return self._label

    def add(self, kind: str, content: bytes) -> None:
        """Take note of a file.  Raises `DataError` for a label that is none, and for a second image or label."""
        is_image = kind in _IMAGES
        if (self._image if is_image else self._label) is not None:
            raise DataError(f"{self.name} has more than one {'image' if is_image else 'label'}.")
        if is_image:
            self._image = content
        else:
            self._label = _label(self.name, kind, content)

    def check_whole(self) -> None:
        """Raise `DataError` unless there are an image and a label."""
        for what, there, kinds in (("image", self._image, "jpg, png"), ("label", self._label, ", ".join(_LABELS))):
            if there is None:
                raise DataError(f"{self.name} has no {what}; expected a file beside it that ends in one of {kinds}.")


def _samples(shard: Path) -> list[_Sample]:
    """The samples of a shard; files of other kinds are passed over."""
    found: list[_Sample] = []
    key = None
    with reading(shard, DataError, "a tar file"):
        size_bytes = shard.stat().st_size
        check_room(shard, size_bytes)
        for name, kind, content in _files(shard, size_bytes):
            if name != key:
                key = name
                found.append(_Sample(printable(f"{shard}: {key}")))
            found[-1].add(kind, content)
        for sample in found:
            sample.check_whole()
    if not found:
        raise DataError(f"{shard} holds no samples; expected files such as 000.jpg and 000.cls in it.")
    return found


def _files(shard: Path, size_bytes: int) -> Iterator[tuple[str, str, bytes]]:
    """The images and labels in a shard: key, suffix, content.  Nothing is unpacked to the disk."""
    with tarfile.open(shard, "r:") as archive:
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            stem, _, kind = name.partition(".")
            kind = kind.lower()
            if not member.isreg() or not stem or kind not in (*_IMAGES, *_LABELS):
                continue
            if member.issparse() or member.size > (size_bytes if kind in _IMAGES else _MOST_LABEL_BYTES):
                raise DataError(f"{shard}: {member.name} announces {member.size:,} bytes, which is too much.")
            content = archive.extractfile(member)
            assert content is not None
            yield f"{folder}/{stem}" if folder else stem, kind, bytes(read_exactly(content, member.size))


def _label(name: str, kind: str, content: bytes) -> int | str:
    text: Any = content.decode().strip()
    if kind == "json":
        told = parse_json(content)
        text = next((told[key] for key in _KEYS if key in told), None) if isinstance(told, dict) else told
    if isinstance(text, str) and text:
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text
    if type(text) is int and 0 <= text < 10**9:
        return text
    raise DataError(f"{name}.{kind} tells no class: {content[:40]!r}. Expected a number from 0 on, or a name.")


def _labels(where: Path, samples: Sequence[_Sample]) -> Array:
    labels = [sample.label for sample in samples]
    kinds = {type(label) for label in labels}
    if len(kinds) > 1:
        number, name = (next(one for one in samples if type(one.label) is kind) for kind in (int, str))
        raise DataError(
            f"{where}: {number.name} is labelled {number.label}, but {name.name} {name.label!r}; expected numbers in "
            "all, or names in all."
        )
    return np.array(labels, np.int64 if kinds == {int} else object)
