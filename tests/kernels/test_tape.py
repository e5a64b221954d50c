"""What kernels were asked for can be played again."""

from __future__ import annotations

import signal
import threading
from functools import partial

import numpy as np
import pytest

from dist_relu.core.arrays import Array
from dist_relu.kernels.activations import leaky_relu, relu
from dist_relu.kernels.copies import look_up
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.losses import add_signs
from dist_relu.kernels.ordered_sum import add, ordered_sum
from dist_relu.kernels.products import multiply
from dist_relu.kernels.tape import Tape, Tapes, in_python, play, until_done
from dist_relu.kernels.tiles import AS_IS, BIAS_RELU


@kernel
def _count_down(number: Array) -> int:
    """Take one from number[0], (1,) int64, until it is 0; returns what was there."""
    before: int = number[0]
    if before > 0:
        number[0] -= 1
    return before


def _find(tapes: Tapes, kind: str) -> Tape | None:
    return next(iter(tapes.ready([kind])), None)


def test_a_tape_that_came_out_alike_twice_does_the_same_again() -> None:
    rng = np.random.default_rng(0)
    x, w, bias = rng.normal(size=(3, 20)), rng.normal(size=(20, 5)), rng.normal(size=5)
    z, total, seen = np.empty((3, 5)), np.zeros(15), []

    def work() -> None:
        multiply(x, w, bias, BIAS_RELU, z)
        in_python(lambda: seen.append(z.sum()))
        add_signs(total, z.reshape(-1), 0.5)
        add(total, z.reshape(-1))

    tapes = Tapes()
    for time in range(4):
        x[:] = rng.normal(size=x.shape)
        total[:] = 0
        tape = _find(tapes, "work")
        assert (tape is not None) == (time >= 2)
        if tape:
            play([tape])
        else:
            tapes.record("work", work)
        expected = np.maximum(x @ w + bias, 0)
        np.testing.assert_allclose(z, expected, rtol=1e-12)
        np.testing.assert_array_equal(total, z.reshape(-1) + 0.5 * (z.reshape(-1) > 0))
        assert seen[-1] == z.sum()
    assert len(seen) == 4


def test_tapes_are_played_one_after_another() -> None:
    x, y = np.ones(3), np.ones(3)
    tapes = Tapes()
    for _ in range(2):
        tapes.record("double", lambda: add(x, x))
        tapes.record("add", lambda: add(y, x))
    double, plus = tapes.ready(["double", "add"])
    assert double
    assert plus
    x[:], y[:] = 1, 0
    play([double, plus, double, plus])
    np.testing.assert_array_equal(y, 2 + 4)
    play([])


def test_work_is_played_in_arrays_that_move() -> None:
    columns, total, tapes = np.arange(12.0), np.zeros(3), Tapes()
    for place in range(6):
        part, result = np.arange(12.0)[2 * place : 2 * place + 2], np.zeros(2)
        tapes.do("a part", partial(_add_thrice, part, result, total), (part, result))
        np.testing.assert_array_equal(result, 3 * columns[2 * place : 2 * place + 2])
        assert total[2] == place + 1
    assert tapes.ready(["a part"])


def _add_thrice(part: Array, result: Array, total: Array) -> None:
    for _ in range(3):
        add(result, part)
    add(total, np.ones(3))


def test_a_kernel_that_fails_where_arrays_moved_tells_why() -> None:
    tapes, table, indices, y = Tapes(), np.ones((4, 2)), np.zeros(2, np.int64), np.empty((2, 2))
    for symbols in np.array([[0, 1], [2, 3], [1, 1]]):
        tapes.do("look up", partial(look_up, symbols, 4, table, indices, y), (symbols,))
        np.testing.assert_array_equal(indices, symbols)
    wrong = np.array([1, 4])
    with pytest.raises(IndexError, match="no vector for a number"):
        tapes.do("look up", partial(look_up, wrong, 4, table, indices, y), (wrong,))


def test_python_between_kernels_keeps_work_in_arrays_that_move_from_being_played() -> None:
    tapes = Tapes()
    for number in range(4):
        x = np.full(3, float(number))

        def work(x: Array = x) -> None:
            in_python(lambda: np.add(x, 1, out=x))
            add(x, x)

        tapes.do("work", work, (x,))
        np.testing.assert_array_equal(x, 2 * (number + 1))


def test_a_misspelt_switch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIST_RELU_TAPES", "of")
    with pytest.raises(ValueError, match='DIST_RELU_TAPES is \'of\'; expected "on" or "off"'):
        Tapes()


def test_a_kernel_that_has_not_done_is_called_again() -> None:
    number = np.array([2])
    seen: list[int] = []

    def work() -> None:
        until_done(_count_down, number, attend=seen.append)

    work()
    assert seen == [2, 1]
    tapes = Tapes()
    for _ in range(2):
        number[0] = 2
        tapes.record("work", work)
    number[0] = 3
    tape = _find(tapes, "work")
    assert tape
    play([tape])
    assert seen == [2, 1] * 3 + [3, 2, 1]


def test_work_is_played_whatever_kernels_were_called_until_one_had_done() -> None:
    number, tapes = np.array([0]), Tapes()

    def work() -> None:
        until_done(_count_down, number, attend=lambda _: _count_down(number))

    for before in (5, 0):  # another process was late once, and not the other time
        number[0] = before
        tapes.record("work", work)
    assert _find(tapes, "work")


def test_an_error_stops_a_tape() -> None:
    x, fails = np.ones(3), [False]

    def check() -> None:
        if fails[0]:
            raise KeyError("a reason")

    def work() -> None:
        in_python(check)
        add(x, x)

    tapes = Tapes()
    for _ in range(2):
        tapes.record("work", work)
    tape, fails[0] = _find(tapes, "work"), True
    assert tape
    with pytest.raises(KeyError, match="a reason"):
        play([tape])
    np.testing.assert_array_equal(x, 4)


@pytest.mark.parametrize("what", ["a number that differs", "contents that differ", "a result", "other calls"])
def test_work_that_differs_stays_python(what: str) -> None:
    x, times = np.ones(3), [0]

    def work() -> None:
        match what:
            case "a number that differs":
                add_signs(x, x, float(len(times)))
            case "contents that differ":
                add(x, np.full(3, len(times)))
            case "a result":
                _count_down(np.zeros(1, np.int64))
            case "other calls":
                for _ in times:
                    add(x, x)
        times.append(0)

    tapes = Tapes()
    for _ in range(4):
        tapes.record("work", work)
        assert _find(tapes, "work") is None


def test_constants_of_each_time_are_kept() -> None:
    x = np.zeros(3)
    tapes = Tapes()
    for _ in range(2):
        tapes.record("work", lambda: add(x, np.arange(3.0)))
    tape = _find(tapes, "work")
    assert tape
    for _ in range(3):
        np.ones(3)  # in whose memory a constant would lie that nobody keeps
        play([tape])
    np.testing.assert_array_equal(x, 5 * np.arange(3))


def test_a_signal_is_handled_while_a_tape_is_played() -> None:
    class Heard(Exception):
        pass

    def hear(*_: object) -> None:
        raise Heard

    x, count = np.ones((300, 300)), np.zeros(1)
    one, z = np.ones(1), np.empty((300, 300))

    def work() -> None:
        for _ in range(300):
            multiply(x, x, x.reshape(-1), AS_IS, z)
            add(count, one)

    tapes = Tapes()
    for _ in range(2):
        tapes.record("work", work)
    tape = _find(tapes, "work")
    assert tape
    count[:] = 0
    before = signal.signal(signal.SIGALRM, hear)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.03)
        with pytest.raises(Heard):
            play([tape])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert 0 < count[0] < 300


def test_other_threads_leave_nothing_on_a_tape() -> None:
    x, y = np.ones(3), np.ones(3)
    tapes = Tapes()

    def work() -> None:
        other = threading.Thread(target=add, args=(y, y))
        other.start()
        other.join()
        add(x, x)

    for _ in range(2):
        tapes.record("work", work)
    tape = _find(tapes, "work")
    assert tape
    play([tape])
    assert (x[0], y[0]) == (8, 4)
    assert Tape.current() is None


def test_arguments_of_all_kinds_reach_a_kernel() -> None:
    rows, total, scratch = np.arange(12.0).reshape(3, 4), np.empty(3), np.empty((3, 1024))
    tapes = Tapes()
    for _ in range(2):
        tapes.record("sum", lambda: ordered_sum(rows, 1, np.array([0, 1, 1]), scratch, total))
    tape = _find(tapes, "sum")
    assert tape
    rows += 1
    play([tape])
    np.testing.assert_array_equal(total, rows[:, 1:].sum(axis=0))


def test_what_a_star_stands_for_is_played() -> None:
    dy, y, total = np.ones((2, 3)), np.ones((2, 3)), np.empty(3)
    tapes = Tapes()
    for function, arguments in ((relu, ()), (leaky_relu, (0.5,))):
        name = repr(function)
        for _ in range(2):
            dy[:] = 1
            tapes.record(name, partial(function.backward_sum_rows, dy, y, total, *arguments))
        tape = _find(tapes, name)
        assert tape
        dy[:], y[:, 1] = 1, -1
        play([tape])
        np.testing.assert_array_equal(total, [2, 2 * sum(arguments), 2])
