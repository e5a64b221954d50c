"""The checks that all arguments go through."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from dist_relu.core.checks import (
    Check,
    check_bool,
    check_choice,
    check_dtype,
    check_float,
    check_floats,
    check_int,
    check_ints,
    check_is,
    check_not_negative,
    check_positive,
    check_seed,
    check_share,
    optional,
)


@pytest.mark.parametrize(
    ("check", "value", "expected"),
    [
        (check_int, np.int64(4), 4),
        (check_int, np.array(4, np.uint8), 4),
        (check_float, np.float32(0.5), 0.5),
        (check_float, np.int32(2), 2.0),
        (check_float, Fraction(1, 4), 0.25),
        (check_float, np.array(0.5), 0.5),
        (check_bool, np.True_, True),
        (check_share, 0, 0.0),
        (check_ints, [np.int64(2), 3], (2, 3)),
        (check_floats, np.array([0.5, 2]), (0.5, 2.0)),
        (optional(check_int), None, None),
    ],
)
def test_numbers_of_numpy_come_back_as_those_of_python(check: Check, value: Any, expected: Any) -> None:
    found = check("argument", value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("check", "value", "error", "message"),
    [
        (check_int, True, TypeError, "argument=True: must be a whole number."),
        (check_int, np.True_, TypeError, "must be a whole number."),
        (check_int, 1.0, TypeError, "argument=1.0: must be a whole number."),
        (check_int, "1", TypeError, "argument='1': must be a whole number."),
        (check_int, [1], TypeError, "argument=[1]: must be a whole number."),
        (check_int, 0, ValueError, "argument=0: must be at least 1."),
        (check_float, True, TypeError, "argument=True: must be a number."),
        (check_float, "1", TypeError, "argument='1': must be a number."),
        (check_float, None, TypeError, "argument=None: must be a number."),
        (check_float, 1j, TypeError, "must be a number."),
        (check_float, np.zeros(2), TypeError, "must be a number."),
        (check_float, float("nan"), ValueError, "argument=nan: must be finite in float32."),
        (check_float, float("inf"), ValueError, "argument=inf: must be finite in float32."),
        (check_float, 1e39, ValueError, "must be finite in float32."),
        (check_float, 10**400, ValueError, "must be finite in float32."),
        (check_positive, 0, ValueError, "argument=0: must be above 0 and finite in float32."),
        (check_positive, 1e-60, ValueError, "must be above 0 and finite in float32."),
        (check_not_negative, -1, ValueError, "must be at least 0 and finite in float32."),
        (check_share, 1, ValueError, "argument=1: must be at least 0 and below 1."),
        (check_share, float("nan"), ValueError, "must be at least 0 and below 1."),
        (check_bool, 1, TypeError, "argument=1: must be True or False."),
        (check_ints, 3, TypeError, "argument=3: expected a sequence of whole numbers."),
        (check_ints, (3, 0), ValueError, "argument[1]=0: must be at least 1."),
        (check_ints, "12", TypeError, "expected a sequence of whole numbers."),
        (check_dtype, None, ValueError, "argument=None: models compute in float32 or float64."),
        (check_dtype, "int8", ValueError, "argument='int8': models compute in float32 or float64."),
        (check_dtype, "x", ValueError, "argument='x': models compute in float32 or float64."),
    ],
)
def test_what_is_wrong_is_told_with_the_name_of_the_argument(
    check: Check, value: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        check("argument", value)


def test_an_argument_of_a_constructor_is_shown_as_it_was_written() -> None:
    with pytest.raises(ValueError, match=r"^Dense\(units=0\): must be at least 1\.$"):
        check_int("Dense(units)", 0)


def test_infinity_is_a_number_where_it_is_allowed_but_nan_never_is() -> None:
    assert check_float("argument", float("-inf"), finite=False) == float("-inf")
    with pytest.raises(ValueError, match="argument=nan: must be a number, not NaN"):
        check_float("argument", float("nan"), finite=False)


def test_a_class_in_place_of_an_object_of_it_is_told_apart() -> None:
    with pytest.raises(TypeError, match=r"expected an object of type int, not the class itself: write bool\(...\)"):
        check_is("argument", bool, int)


def test_words_are_listed() -> None:
    wrong: tuple[tuple[Any, type[Exception]], ...] = (("c", ValueError), (1, TypeError))
    for value, error in wrong:
        with pytest.raises(error, match=f'argument={value!r}: expected "a" or "b".'):
            check_choice("argument", value, ("a", "b"))


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_has_64_bits(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed={seed}: must be"):
        check_seed(seed)
