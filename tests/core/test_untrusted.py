"""What strangers wrote is read within bounds, and checked down to the last number."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, isnan, nan
from pathlib import Path
from typing import Any, Literal

import pytest

import dist_relu as dr
from dist_relu.core.untrusted import made, parse_json, read_exactly, read_file, read_up_to, reading


@dataclass
class Part:
    count: int
    share: float
    name: str | None


@dataclass
class Whole:
    parts: list[Part]
    table: dict[str, list[int]]
    rest: Any = None
    pairs: Sequence[tuple[int, str]] = ()
    side: Literal["left", "right"] = "left"
    own: int = field(init=False, default=0)


GOOD = {"parts": [{"count": 1, "share": None, "name": None}], "table": {"a": [1, 2]}}


def test_objects_are_made_of_what_fits() -> None:
    whole = made(Whole, GOOD)
    assert whole.parts[0].count == 1
    assert isnan(whole.parts[0].share)
    assert made(Whole, {**GOOD, "rest": ["any"]}).rest == ["any"]
    assert made(Whole, {**GOOD, "pairs": [[1, "a"]]}).pairs == [(1, "a")]
    assert made(Whole, {**GOOD, "side": "right"}).side == "right"
    assert made(list[float], [1, 2.5]) == [1.0, 2.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": {}}, "parts is {}"),
        ({"parts": [1]}, r"parts\[0\] is 1"),
        ({"parts": [{"count": 1, "share": 1.0}]}, r"parts\[0\] has no name"),
        ({"parts": [{"count": True, "share": 1.0, "name": None}]}, r"parts\[0\].count is True"),
        ({"parts": [{"count": 10**20, "share": 1.0, "name": None}]}, r"parts\[0\].count is 1000"),
        ({"parts": [{"count": 1, "share": inf, "name": None}]}, r"parts\[0\].share is inf"),
        ({"parts": [{"count": 1, "share": nan, "name": None}]}, r"parts\[0\].share is nan"),
        ({"parts": [{"count": 1, "share": "1.0", "name": None}]}, r"parts\[0\].share is '1.0'"),
        ({"parts": [{"count": 1, "share": 10**400, "name": None}]}, r"parts\[0\].share is 1000"),
        ({"table": {"a": [1, 2.5]}}, r"table\['a'\]\[1\] is 2.5"),
        ({"table": {"a": [2**63]}}, r"table\['a'\]\[0\] is 9223372036854775808"),
        ({"pairs": [[1]]}, r"pairs\[0\] is \[1\]"),
        ({"pairs": [[1, "a"], ["b", "a"]]}, r"pairs\[1\]\[0\] is 'b'"),
        ({"side": "up"}, "side is 'up'"),
        ({"side": ["left"]}, r"side is \['left'\]"),
        ({"own": 3}, "it has 'own'"),
        ({"more": 3}, "it has 'more'"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        made(Whole, GOOD | change)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": 1, "a": 2}', "1" * 5000, "\xff", "{"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with (
        pytest.raises(dr.DataError, match=r"^a file can't be read as a log: .*\.$"),
        reading("a file", dr.DataError, "a log"),
    ):
        parse_json(text.encode("latin-1"))


@pytest.mark.parametrize(
    "error", [OSError(2, "why"), KeyError("why"), NotImplementedError("why.\nmore"), MemoryError()]
)
def test_whatever_libraries_raise_becomes_one_error(error: Exception) -> None:
    with (
        pytest.raises(dr.DataError, match=r"^f can't be read as x: .*(why|memory)") as raised,
        reading("f", dr.DataError, "x"),
    ):
        raise error
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("kind", [dr.DataError, ValueError])
def test_what_a_file_says_reaches_no_terminal_unseen(kind: type[Exception]) -> None:
    with pytest.raises(dr.DataError) as raised, reading("f", dr.DataError, "x"):
        raise kind("\x1b[31m\ud800\u202eé" + "a" * 10**6)
    message = str(raised.value)
    assert r"\x1b[31m\ud800\u202eé" in message
    assert message.isprintable()
    assert len(message) < 1200


def test_no_more_is_read_than_there_may_be(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345678")
    assert read_file(path, 8) == b"12345678"
    for endless in (path, Path("/dev/zero")):
        with pytest.raises(ValueError, match="more than 7 bytes"):
            read_file(endless, 7)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"through a pipe"))
    writer.start()
    assert read_file(pipe, 100) == b"through a pipe"
    writer.join()


def test_memory_is_taken_for_what_is_there_and_not_for_what_is_announced() -> None:
    with pytest.raises(EOFError, match=r"ends after 3 of 1,000,000,000,000 bytes"):
        read_exactly(io.BytesIO(b"abc"), 10**12)
    assert read_exactly(io.BytesIO(b"abc"), 2) == b"ab"
    assert read_up_to(io.BytesIO(b"abc"), 10**12) == b"abc"
