"""Schedules of the learning rate, from the text of --schedule to objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dist_relu.cli.types import SCHEDULE_FORMS
from dist_relu.optim import Constant, Cosine, Exponential, OneCycle, Polynomial, Schedule, Step, WarmUp
from dist_relu.run.callbacks import ReduceOnPlateau


class Course(NamedTuple):
    """A schedule of the command line.  make: it, from learning rate, epochs, and at most so many numbers."""

    make: Callable[..., Schedule]
    most_numbers: int


def _plateau(monitor: str, factor: float = 0.1, patience: float = 10.0) -> ReduceOnPlateau:
    if not patience.is_integer():
        raise ValueError(f"PATIENCE {patience:g} is no whole number.")
    return ReduceOnPlateau(monitor, factor, int(patience))


def _until_plateau(lr: float, *numbers: float) -> Schedule:
    _plateau("loss", *numbers)  # checks them
    return Constant(lr)


def _exponential(lr: float, epochs: int, factor: float | None = None) -> Schedule:
    """Times `factor` in every epoch, or down to a thousandth over all of them."""
    return Exponential(lr, lr / 1000 if factor is None else lr * factor**epochs, epochs)


SCHEDULES = {
    "constant": Course(lambda lr, epochs: Constant(lr), 0),
    "step": Course(lambda lr, epochs, *numbers: Step(lr, *numbers), 2),
    "cosine": Course(Cosine, 0),
    "onecycle": Course(OneCycle, 1),
    "polynomial": Course(Polynomial, 1),
    "exponential": Course(_exponential, 1),
    "plateau": Course(lambda lr, epochs, *numbers: _until_plateau(lr, *numbers), 2),
}


def parse_schedule(text: str, lr: float, epochs: int) -> Schedule:
    """From one of the words of `SCHEDULES`, perhaps with numbers, and perhaps after "warmup:EPOCHS+".

    That of "plateau" is constant: `plateau_of` lowers it. Raises ValueError for any other text.
    """
    head, plus, tail = text.partition("+")
    try:
        name, numbers = _named_numbers(head)
        if name == "warmup" and len(numbers) <= 1:
            return WarmUp(parse_schedule(tail or "constant", lr, epochs), *numbers)
        if not plus and name in SCHEDULES and len(numbers) <= SCHEDULES[name].most_numbers:
            return SCHEDULES[name].make(lr, epochs, *numbers)
    except ValueError as error:
        raise ValueError(f"--schedule {text}: {error}") from None
    raise ValueError(f"--schedule {text}: expected {SCHEDULE_FORMS}.")


def plateau_of(text: str, *, validates: bool) -> ReduceOnPlateau | None:
    """The callback of a schedule "plateau", perhaps after a warm-up, and None of any other.  text: a valid one.

    validates: whether there are losses of validations to go by, otherwise it goes by those of training.
    """
    name, numbers = _named_numbers(text.rpartition("+")[2])
    return _plateau("validation_loss" if validates else "loss", *numbers) if name == "plateau" else None


def _named_numbers(text: str) -> tuple[str, list[float]]:
    """From "name:number,number".  Raises ValueError for what is no number."""
    name, _, rest = text.partition(":")
    try:
        return name, [float(number) for number in rest.split(",")] if rest else []
    except ValueError:
        raise ValueError(f"{rest!r} are no numbers with commas between them. Expected {SCHEDULE_FORMS}.") from None
