"""Safetensors files, as this package writes and reads them: in pieces, without a second copy of what is large.

A file has 8 bytes with the length of its header, the header, and the tensors' bytes. The header is JSON: texts under
`__metadata__`, and for each tensor its type, its shape, and where its bytes are.
https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.files import write_pieces
from dist_relu.core.untrusted import parse_json, read_exactly

TYPES = dict(
    zip(
        ["F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"],
        ["<f8", "<f4", "<f2", "<i8", "<i4", "<i2", "|i1", "<u8", "<u4", "<u2", "|u1", "|b1"],
        strict=True,
    )
)
"""What safetensors calls NumPy's types."""
_NAMES = {np.dtype(dtype): name for name, dtype in TYPES.items()}

MOST_HEADER_BYTES = 2**22
"""Thousands of tensors; bounds the time that a header can take."""

_METADATA = "__metadata__"


class HeaderTooLarge(ValueError):
    """A file's header would be larger than one may be that is read; the message says how large."""


@final
@dataclass(frozen=True)
class Block:
    """A block is an array in which tensors lie one after the other: names and shapes of these, in their order.

    dtype: one of `TYPES`.
    """

    dtype: np.dtype[Any]
    tensors: Sequence[tuple[str, tuple[int, ...]]]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return sum(prod(shape) for _, shape in self.tensors)


def type_name(dtype: np.dtype[Any]) -> str | None:
    """What safetensors calls a type, of any order of bytes; None for one that it does not have."""
    return _NAMES.get(np.dtype(dtype).newbyteorder("<"))


def bytes_of(array: Array) -> memoryview:
    """The bytes of an array in a file: its own memory where that is possible."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def checksum(arrays: Iterable[Array]) -> str:
    """The CRC-32 of the bytes of some arrays, one after the other.

    It tells of damage, at a third of the time that a SHA-256 takes on processors that are made for that.
    """
    value = 0
    for array in arrays:
        value = zlib.crc32(bytes_of(array), value)
    return f"{value:08x}"


def write_tensors(
    path: str | Path, metadata: Mapping[str, str], blocks: Sequence[Block], arrays: Sequence[Array]
) -> None:
    """Write a file with these blocks.  arrays: what they hold, of their types and sizes.

    The same content gives the same bytes. Raises `WriteError` and `HeaderTooLarge`.
    """
    text = json.dumps({_METADATA: metadata, **_table(blocks)}).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MOST_HEADER_BYTES:
        raise HeaderTooLarge(f"{len(text):,} bytes, which is more than {MOST_HEADER_BYTES:,},")
    contents = [bytes_of(arrays[number]) for number in _order(blocks)]
    write_pieces(path, [len(text).to_bytes(8, "little"), text, *contents])


def read_header(file: BufferedReader) -> tuple[dict[str, str], dict[str, Any]]:
    """The metadata of an open file, and its table of tensors as it is; the file then stands where the tensors begin.

    Raises ValueError and EOFError for a header that is none, or larger than any of ours.
    """
    size_bytes = int.from_bytes(read_exactly(file, 8), "little")
    if size_bytes > MOST_HEADER_BYTES:
        raise ValueError(f"its header has {size_bytes:,} bytes, which is more than {MOST_HEADER_BYTES:,}")
    table = parse_json(read_exactly(file, size_bytes))
    if not isinstance(table, dict):
        raise ValueError("its header is no table")
    metadata = table.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are no texts")
    return metadata, table


def read_blocks(file: BufferedReader, table: Mapping[str, Any], blocks: Sequence[Block]) -> list[Array]:
    """What an open file has behind its header, for each block a flat array.

    Raises ValueError unless it has just these blocks; memory is taken only for what is there.
    """
    if table != _table(blocks):
        raise ValueError("its tensors are not those that its header tells of")
    there = os.fstat(file.fileno()).st_size - file.tell()
    needed = sum(block.size * block.dtype.itemsize for block in blocks)
    if there != needed:
        raise ValueError(f"it has {there:,} bytes of tensors in place of {needed:,}")
    arrays = [np.empty(0)] * len(blocks)
    for number in _order(blocks):
        arrays[number] = np.empty(blocks[number].size, blocks[number].dtype)
        if file.readinto(bytes_of(arrays[number])) < arrays[number].nbytes:
            raise EOFError("it became shorter while it was read")
    return arrays


def _order(blocks: Sequence[Block]) -> list[int]:
    """How blocks lie in a file: those of the widest numbers first, so that all are aligned."""
    return sorted(range(len(blocks)), key=lambda number: -blocks[number].dtype.itemsize)


def _table(blocks: Sequence[Block]) -> dict[str, Any]:
    """Where each tensor is, as a header has it."""
    table: dict[str, Any] = {}
    begin = 0
    for number in _order(blocks):
        dtype = blocks[number].dtype
        for name, shape in blocks[number].tensors:
            end = begin + prod(shape) * dtype.itemsize
            table[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
            begin = end
    return table
