"""Sizes in bytes, as text and back."""

from __future__ import annotations

import pytest

from dist_relu.core.sizes import parse_size, size_text


@pytest.mark.parametrize(
    ("text", "size"),
    [("256KiB", 256 << 10), ("1 MiB", 1 << 20), ("4mb", 4_000_000), ("64kB", 64_000), ("100000", 100_000), ("7B", 7)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "KiB", "1.5MiB", "-1", "1TiB", "auto"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a size, such as 256KiB, 1MiB or a number of bytes"):
        parse_size(text)


def test_sizes_are_written_exactly() -> None:
    assert [size_text(size) for size in (0, 1000, 1024, 1 << 20, (1 << 20) + 1024)] == [
        "0 bytes",
        "1,000 bytes",
        "1 KiB",
        "1 MiB",
        "1,025 KiB",
    ]
