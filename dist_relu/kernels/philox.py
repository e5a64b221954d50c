"""Random numbers as kernels draw them: bit by bit those that NumPy's `Generator(Philox(...))` draws.

Philox4x64-10 makes blocks of four words of 64 bits out of a key of two words and a counter of four, of which NumPy
counts the first one from 1 on. Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3".

A stream is told by its key (2,) uint64, which is the seed and the purpose of `dist_relu.partition.rng`, and by three
coordinates, the other words of the counter. The first coordinate lies in an array, `clock` (1,) int64, since it differs
from step to step: where kernels find it, the same call draws other numbers in the next step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel

Word = Any
"""A uint64."""

_MULTIPLIERS = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_WEYL = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
_LOW_HALF = np.uint64(0xFFFFFFFF)

_COUNTER, _BLOCK, _NEXT, _HAS_HALF, _HALF, STATE_SIZE = 2, 6, 10, 11, 12, 13
"""Places in the state of a stream that is drawn from number by number, behind its key, and their number."""


@intrinsic
def _high_product(typing_context: Any, a: Any, b: Any) -> Any:
    """Compute the upper word of the product of two."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(arg, wide) for arg in args))
        return builder.trunc(builder.lshr(product, wide(64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), codegen


def _philox(key_0: Word, key_1: Word, a: Word, b: Word, c: Word, d: Word) -> tuple[Word, Word, Word, Word]:
    """Make the block of a key and a counter."""
    for _ in range(10):
        high_a, low_a = _high_product(_MULTIPLIERS[0], a), _MULTIPLIERS[0] * a
        high_c, low_c = _high_product(_MULTIPLIERS[1], c), _MULTIPLIERS[1] * c
        a, b, c, d = high_c ^ b ^ key_0, low_c, high_a ^ d ^ key_1, low_a
        key_0 += _WEYL[0]
        key_1 += _WEYL[1]
    return a, b, c, d


def _to_single(word: Word) -> float:
    """Make a float32 from [0, 1) of the upper 24 of the lower 32 bits."""
    return np.float32(np.uint32(word) >> np.uint32(8)) * np.float32(2.0**-24)  # type: ignore[return-value]


def _to_double(word: Word) -> float:
    """Make a float64 from [0, 1) of the upper 53 bits."""
    return np.float64(word >> np.uint64(11)) * 2.0**-53


_block = kernel(_philox, inlined=True)
_single = kernel(_to_single, inlined=True)
_double = kernel(_to_double, inlined=True)


@kernel
def random_bits(key: Array, clock: Array, second: int, third: int, out: Array) -> None:
    """out = random bits, (n,) uint16."""
    key_0, key_1, b, c, d = key[0], key[1], np.uint64(clock[0]), np.uint64(second), np.uint64(third)
    for block in range((out.shape[0] + 15) // 16):
        words = _block(key_0, key_1, np.uint64(block + 1), b, c, d)
        numbers = out[16 * block : 16 * block + 16]
        if numbers.shape[0] == 16:
            for i in range(16):
                numbers[i] = np.uint16(words[i // 4] >> np.uint64(16 * (i % 4)))
        else:
            for i in range(numbers.shape[0]):
                numbers[i] = np.uint16(words[i // 4] >> np.uint64(16 * (i % 4)))


@kernel
def uniform(key: Array, clock: Array, second: int, third: int, out: Array) -> None:
    """out = numbers from [0, 1), (n,), with as many random bits as fit; those of float32 take half a word each."""
    key_0, key_1, b, c, d = key[0], key[1], np.uint64(clock[0]), np.uint64(second), np.uint64(third)
    if out.itemsize == 4:
        for block in range((out.shape[0] + 7) // 8):
            words = _block(key_0, key_1, np.uint64(block + 1), b, c, d)
            numbers = out[8 * block : 8 * block + 8]
            if numbers.shape[0] == 8:
                for i in range(8):
                    numbers[i] = _single(words[i // 2] >> np.uint64(32 * (i % 2)))
            else:
                for i in range(numbers.shape[0]):
                    numbers[i] = _single(words[i // 2] >> np.uint64(32 * (i % 2)))
    else:
        for block in range((out.shape[0] + 3) // 4):
            words = _block(key_0, key_1, np.uint64(block + 1), b, c, d)
            numbers = out[4 * block : 4 * block + 4]
            if numbers.shape[0] == 4:
                for i in range(4):
                    numbers[i] = _double(words[i])
            else:
                for i in range(numbers.shape[0]):
                    numbers[i] = _double(words[i])


@kernel
def begin(key: Array, clock: Array, second: int, third: int, state: Array) -> None:
    """Begin to draw number by number from a stream, by the functions below.  state: (STATE_SIZE,) uint64."""
    state[0], state[1] = key[0], key[1]
    state[_COUNTER], state[_COUNTER + 1] = 0, np.uint64(clock[0])
    state[_COUNTER + 2], state[_COUNTER + 3] = np.uint64(second), np.uint64(third)
    state[_NEXT], state[_HAS_HALF] = 4, 0


@kernel
def _word(state: Array) -> Word:
    """Draw 64 bits."""
    if state[_NEXT] == 4:
        state[_COUNTER] += np.uint64(1)
        words = _block(state[0], state[1], state[2], state[3], state[4], state[5])
        for w in range(4):
            state[_BLOCK + w] = words[w]
        state[_NEXT] = 0
    word = state[_BLOCK + int(state[_NEXT])]
    state[_NEXT] += np.uint64(1)
    return word


@kernel
def _half_word(state: Array) -> Word:
    """Draw 32 bits, of two such the lower half of a word first."""
    if state[_HAS_HALF]:
        state[_HAS_HALF] = 0
        return np.uint64(state[_HALF])
    word = _word(state)
    state[_HAS_HALF], state[_HALF] = 1, word >> np.uint64(32)
    return word & _LOW_HALF


@kernel
def draw_uniform(state: Array) -> float:
    """Draw a number from [0, 1)."""
    return _double(_word(state))


@kernel
def draw_integer(state: Array, largest: int) -> int:
    """Draw a whole number from 0 to `largest`, which is below 2³² - 1.  Lemire (2019), algorithm 5."""
    if largest == 0:
        return 0
    count = np.uint64(largest + 1)
    product = _half_word(state) * count
    if product & _LOW_HALF < count:
        threshold = (_LOW_HALF - np.uint64(largest)) % count
        while product & _LOW_HALF < threshold:
            product = _half_word(state) * count
    return np.int64(product >> np.uint64(32))  # type: ignore[return-value]
