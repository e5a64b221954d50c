"""A line that shows how a run goes on, in notebooks, on terminals and in files."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from html import escape
from typing import Any, TextIO, final

from dist_relu.core.checks import check_callable
from dist_relu.engine.results import Validated
from dist_relu.engine.watch.events import Progress
from dist_relu.run.trainer import Trainer

_UPDATE_EVERY_S = 0.1


@final
@dataclass(eq=False)
class LiveProgress:
    """Shows how a run goes on: in a notebook and on a terminal by a line that changes, in a file by a line an epoch.

    Pass it as `on_progress` of `fit`. Among its `callbacks`, too, it shows validations, and ends its line whatever ends
    the run.
    stream: where text goes, by default standard output. In a notebook the line stands below the cell all the same.
    """

    stream: TextIO | None = None
    _place: _Place | None = field(init=False, default=None, repr=False)
    _line: _Line | None = field(init=False, default=None, repr=False)
    _hears_the_end: bool = field(init=False, default=False, repr=False)

    def __post_init__(self) -> None:
        if self.stream is not None:
            check_callable("LiveProgress(stream).write", getattr(self.stream, "write", None))

    def __call__(self, progress: Progress) -> None:
        """Take note of how far the run is."""
        self._show(_Line(progress, self._line.validation if self._line else ""))
        if progress.step == progress.num_steps and not self._hears_the_end:
            self._end()

    def on_fit_begin(self, trainer: Trainer, *, validates: bool) -> None:
        self._hears_the_end = True

    def on_validation(self, trainer: Trainer, validated: Validated) -> None:
        """Take note of a validation, which the line tells of from now on."""
        if self._line:
            self._show(_Line(self._line.progress, f"validation {validated.in_words}"))

    def on_fit_end(self, trainer: Trainer) -> None:
        self._end()

    def _show(self, line: _Line) -> None:
        if self._place is None:
            self._place = _place(self.stream or sys.stdout)
        self._line = line
        self._place.show(line)

    def _end(self) -> None:
        """Leave the line as it is; the next one is another."""
        if self._place:
            self._place.end()
        self._place, self._line, self._hears_the_end = None, None, False


@final
@dataclass(frozen=True)
class _Line:
    """How far a run is, as text and, for notebooks, with a bar.  validation: what is to be told of the last one."""

    progress: Progress
    validation: str

    def __repr__(self) -> str:
        return f"step {self.progress.step:,}/{self.progress.num_steps:,}  {self.words}"

    def _repr_html_(self) -> str:
        step, num_steps = self.progress.step, self.progress.num_steps
        bar = f'<progress value="{step}" max="{num_steps}" aria-label="steps"></progress>'
        return f"<div>{bar} {step:,}/{num_steps:,} &nbsp; {escape(self.words)}</div>"

    @property
    def words(self) -> str:
        progress = self.progress
        accuracy = f"accuracy {progress.accuracy:.2%}" if progress.accuracy else ""  # 0 where there are no classes
        rate = f"{progress.samples_per_second:,.0f} samples/s"
        words = [f"epoch {progress.epoch}", f"loss {progress.loss:.4g}", accuracy, rate, self.validation]
        return "  ".join(filter(None, words))


class _Place(ABC):
    """Where a line is shown."""

    @abstractmethod
    def show(self, line: _Line) -> None:
        """Show a line, perhaps later, or not at all where the next one comes soon."""

    @abstractmethod
    def end(self) -> None:
        """Show the last line for good."""


@final
class _File(_Place):
    """A line for every epoch, in its last state."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last: _Line | None = None

    def show(self, line: _Line) -> None:
        if self._last and self._last.progress.epoch != line.progress.epoch:
            self.end()
        self._last = line

    def end(self) -> None:
        if self._last:
            self._stream.write(f"{self._last!r}\n")
            self._stream.flush()
        self._last = None


@final
class _Terminal(_Place):
    """A line that is written over."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last: _Line | None = None
        self._written_s = 0.0

    def show(self, line: _Line) -> None:
        self._last = line
        if time.monotonic() >= self._written_s + _UPDATE_EVERY_S:
            self._write("")

    def end(self) -> None:
        self._write("\n")

    def _write(self, end: str) -> None:
        self._stream.write(f"\r\x1b[K{self._last!r}{end}")
        self._stream.flush()
        self._written_s = time.monotonic()


@final
class _Notebook(_Place):
    """A display of IPython, below the cell that runs."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._last: _Line | None = None
        self._shown_s = 0.0

    def show(self, line: _Line) -> None:
        self._last = line
        if time.monotonic() >= self._shown_s + _UPDATE_EVERY_S:
            self.end()

    def end(self) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(self._last, display_id=True)
        else:
            self._handle.update(self._last)
        self._shown_s = time.monotonic()


def _place(stream: TextIO) -> _Place:
    """Find out where a line is seen: IPython is there already where it shows what cells do."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None and type(shell).__name__ != "TerminalInteractiveShell":
        return _Notebook()
    return _Terminal(stream) if stream.isatty() else _File(stream)
