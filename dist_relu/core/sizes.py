"""Sizes in bytes, as text."""

from __future__ import annotations

import re

_UNITS = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "kib": 1 << 10, "mib": 1 << 20}


def parse_size(text: str) -> int:
    """Read a size such as 256KiB, 1MiB, 4MB, or a number of bytes.  Raises ValueError for what is none."""
    found = re.fullmatch(r"(\d{1,12})\s*([a-z]*)", text.strip().lower())
    if not found or found[2] not in _UNITS:
        raise ValueError(f"{text}: expected a size, such as 256KiB, 1MiB or a number of bytes.")
    return int(found[1]) * _UNITS[found[2]]


def size_text(size_bytes: int) -> str:
    """Write a size exactly: "256 KiB", "1 MiB", "1,234 bytes"."""
    for unit, of_unit in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size_bytes and size_bytes % of_unit == 0:
            return f"{size_bytes // of_unit:,} {unit}"
    return f"{size_bytes:,} bytes"
