"""What is to be done between the steps of a call, and after which of them."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal, final

from dist_relu.core.checks import check_int
from dist_relu.engine.results import Validated
from dist_relu.engine.watch.records import EpochSummary

_LOOKS_AT_CLOCK_S = 1.0
"""How long a segment may last, about, where the clock decides about something."""
_FIRST_STEPS = 16
"""Of a segment whose steps nobody has timed yet."""

_HOOKS = ("on_fit_begin", "on_epoch_end", "on_validation", "on_steps", "on_settled", "on_fit_end")


@final
class Agenda:
    """The agenda of a call: who is called after which step.

    is_over: the time of the call is.  has_business: somebody is called at all.
    """

    def __init__(
        self,
        callbacks: Sequence[Any],
        *,
        per_epoch: int,
        validate_every: Literal["epoch"] | int | None,
        max_seconds: float | None,
    ) -> None:
        """validate_every: None for never.  Raises TypeError and ValueError for what is no callback."""
        if isinstance(callbacks, str) or not isinstance(callbacks, Sequence):
            raise TypeError(f"callbacks must be a list of objects, not {type(callbacks).__name__}.")
        for callback in callbacks:
            if isinstance(callback, type) or not any(callable(getattr(callback, hook, None)) for hook in _HOOKS):
                raise TypeError(f"callbacks: {callback!r} is none, as it has none of the methods {', '.join(_HOOKS)}.")
        self._per_epoch = per_epoch
        if validate_every is not None and validate_every != "epoch":
            validate_every = check_int("validate_every", validate_every)
        self._validates_every = per_epoch if validate_every == "epoch" else validate_every
        self._on_fit_begin = [callback.on_fit_begin for callback in callbacks if hasattr(callback, "on_fit_begin")]
        self._on_epoch_end = [callback.on_epoch_end for callback in callbacks if hasattr(callback, "on_epoch_end")]
        self._on_validation = [callback.on_validation for callback in callbacks if hasattr(callback, "on_validation")]
        self._on_settled = [callback.on_settled for callback in callbacks if hasattr(callback, "on_settled")]
        self._on_fit_end = [callback.on_fit_end for callback in callbacks if hasattr(callback, "on_fit_end")]
        self._every_steps: list[tuple[int, Callable[[Any], object]]] = []
        self._clocks: list[_Clock] = []
        for callback in callbacks:
            if hasattr(callback, "on_steps"):
                self._add(getattr(callback, "every", 1), callback.on_steps)
        self._end = None if max_seconds is None else time.monotonic() + max_seconds
        self.has_business = bool(self._on_epoch_end or self._every_steps or self._clocks or self._validates_every)

    def _add(self, every: int | str, on_steps: Callable[[Any], object]) -> None:
        unit, number = parse_every(every)
        match unit:
            case "steps":
                self._every_steps.append((int(number), on_steps))
            case "epochs":
                self._every_steps.append((int(number) * self._per_epoch, on_steps))
            case "seconds":
                self._clocks.append(_Clock(number, on_steps))

    @property
    def _periods(self) -> list[int]:
        """After how many steps somebody is called, again and again."""
        periods = [every for every, _ in self._every_steps]
        if self._on_epoch_end:
            periods.append(self._per_epoch)
        if self._validates_every:
            periods.append(self._validates_every)
        return periods

    def is_due(self, step: int) -> bool:
        """Whether somebody is to be called after so many steps; clocks apart."""
        return any(step % period == 0 for period in self._periods)

    @property
    def is_over(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end

    def begin(self, trainer: Any) -> bool:
        """The call begins.  Returns whether it goes on: False when somebody ends it with StopIteration."""
        validates = bool(self._validates_every)
        return _all_agree([lambda call=call: call(trainer, validates=validates) for call in self._on_fit_begin])  # type: ignore[misc]

    def next_stop(self, step: int, seconds_per_step: Callable[[], float | None]) -> int:
        """Before which step workers must wait, who stand before number `step`."""
        stops = [step - step % period + period for period in self._periods]
        if self._clocks or self._end is not None:
            times = [*(clock.due for clock in self._clocks), *([] if self._end is None else [self._end])]
            left = min(max(min(times) - time.monotonic(), 0.0), _LOOKS_AT_CLOCK_S)
            seconds = seconds_per_step()
            stops.append(step + (max(int(left / seconds), 1) if seconds else _FIRST_STEPS))
        return min(stops, default=2**62)

    def meet(self, trainer: Any, epochs: Sequence[EpochSummary], validate: Callable[[], Validated]) -> bool:
        """Do what is due after the trainer's last step.  Returns whether the call goes on.

        All that is due is done, even when somebody ends the call with StopIteration.
        """
        step = trainer.step
        due: list[Callable[[], object]] = []
        if self._validates_every and step % self._validates_every == 0:
            validated = validate()
            due += [lambda call=call: call(trainer, validated) for call in self._on_validation]  # type: ignore[misc]
        if step % self._per_epoch == 0:
            due += [lambda call=call: call(trainer, epochs[-1]) for call in self._on_epoch_end]  # type: ignore[misc]
        due += [lambda call=call: call(trainer) for every, call in self._every_steps if step % every == 0]  # type: ignore[misc]
        due += [lambda clock=clock: clock.ring(trainer) for clock in self._clocks if clock.is_due]  # type: ignore[misc]
        due += [lambda call=call: call(trainer) for call in self._on_settled if due]  # type: ignore[misc]
        return _all_agree(due)

    def end(self, trainer: Any) -> None:
        """The call ends.  All are told, even when one of them fails."""
        with ExitStack() as stack:
            for call in reversed(self._on_fit_end):
                stack.callback(call, trainer)


def _all_agree(calls: Sequence[Callable[[], object]]) -> bool:
    """Call all.  Returns whether none of them raised StopIteration."""
    agree = True
    for call in calls:
        try:
            call()
        except StopIteration:
            agree = False
    return agree


@final
class _Clock:
    """Calls somebody every so many seconds."""

    def __init__(self, seconds: float, on_steps: Callable[[Any], object]) -> None:
        self._seconds, self._on_steps = seconds, on_steps
        self.begin()

    def begin(self) -> None:
        self.due = time.monotonic() + self._seconds

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self.due

    def ring(self, trainer: Any) -> None:
        try:
            self._on_steps(trainer)
        finally:
            self.begin()


def parse_every(every: int | str) -> tuple[Literal["steps", "epochs", "seconds"], float]:
    """Read how often something is to be done: 500 and "500steps", "2epochs", "60s", "5min", "2h".

    Raises ValueError for what is none of these.
    """
    if isinstance(every, int) and not isinstance(every, bool):
        return "steps", check_int("every", every)
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(steps?|epochs?|s|sec|min|m|h)\s*", str(every))
    if not found or float(found[1]) <= 0:
        raise ValueError(f"every={every!r}: expected a number of steps, or something like 500steps, 1epoch, 60s, 5min.")
    number, unit = float(found[1]), found[2].rstrip("s") or "s"
    if unit in ("step", "epoch"):
        if not number.is_integer():
            raise ValueError(f"every={every!r}: expected a whole number of {unit}s.")
        return ("steps" if unit == "step" else "epochs"), number
    return "seconds", number * {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600}[unit]


def keyed(callbacks: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Name callbacks by their place and class."""
    return ((f"{place}.{type(callback).__name__}", callback) for place, callback in enumerate(callbacks))


def callback_states(callbacks: Sequence[Any]) -> Mapping[str, Any]:
    """What callbacks want to remember: copies, since they may go on before these are written down."""
    return {key: copy.deepcopy(callback.state()) for key, callback in keyed(callbacks) if hasattr(callback, "state")}
