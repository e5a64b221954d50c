"""Files as accidents and strangers leave them, and what whoever reads them may take."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import numpy as np

NUM_MUTATIONS = 10_000
MOST_BYTES = 2**30
MOST_CPU_S = 10.0

_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with one to four random changes: of bits, bytes, numbers, ranges, or of its length."""
    changed = bytearray(content)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3, 4]))):
        _CHANGES[int(rng.integers(len(_CHANGES)))](changed, rng)
    return bytes(changed)


def _range(content: bytearray, rng: np.random.Generator, most: int = 64) -> slice:
    start = int(rng.integers(len(content) + 1))
    return slice(start, min(start + int(rng.integers(1, most)), len(content)))


def _flip_a_bit(content: bytearray, rng: np.random.Generator) -> None:
    if content:
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))


def _set_a_byte_near_the_start(content: bytearray, rng: np.random.Generator) -> None:
    if content:
        content[int(rng.integers(min(len(content), 40)))] = int(rng.integers(256))


def _write_a_number(content: bytearray, rng: np.random.Generator) -> None:
    size, order = int(rng.choice([1, 2, 4, 8])), "big" if rng.random() < 0.5 else "little"
    number = _EXTREMES[int(rng.integers(len(_EXTREMES)))] % 256**size
    at = int(rng.integers(len(content) + 1))
    content[at : at + size] = number.to_bytes(size, "big" if order == "big" else "little")


def _overwrite(content: bytearray, rng: np.random.Generator) -> None:
    where = _range(content, rng)
    content[where] = rng.bytes(where.stop - where.start)


def _insert(content: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(len(content) + 1))
    content[at:at] = rng.bytes(int(rng.integers(1, 64)))


def _delete(content: bytearray, rng: np.random.Generator) -> None:
    del content[_range(content, rng)]


def _repeat(content: bytearray, rng: np.random.Generator) -> None:
    where = _range(content, rng, 4096)
    content[where.stop : where.stop] = content[where]


def _cut_off(content: bytearray, rng: np.random.Generator) -> None:
    del content[int(rng.integers(len(content) + 1)) :]


def _append(content: bytearray, rng: np.random.Generator) -> None:
    content += rng.bytes(int(rng.integers(1, 64))) if rng.random() < 0.5 else bytes(int(rng.integers(1, 10**6)))


_CHANGES: list[Callable[[bytearray, np.random.Generator], None]] = [
    *(_flip_a_bit, _set_a_byte_near_the_start, _write_a_number, _overwrite),
    *(_insert, _delete, _repeat, _cut_off, _append),
]


class Allowance:
    """Memory and processor time that reading may take."""

    def __init__(self) -> None:
        self._before = _most_resident_bytes()

    def check(self, read: Callable[[], None]) -> None:
        """Call it, and raise AssertionError when it took too much."""
        began = time.process_time()
        read()
        assert time.process_time() - began < MOST_CPU_S
        assert _most_resident_bytes() - self._before < MOST_BYTES


def _most_resident_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
