"""How a command shows that it is getting on: a line for every epoch, and below them a status line on a terminal.

Terminals that can't move the cursor (TERM=dumb) get lines alone, as files and pipes do. Nothing is silent for long:
what takes more than some seconds is named, in a file or pipe by a line.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, final

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from dist_relu.engine.results import Validated, metrics_in_words
from dist_relu.engine.watch.events import Progress as Step
from dist_relu.rl import LearningProgress
from dist_relu.run.trainer import Trainer

_SILENCE_S = 5.0
"""How long a phase may take before a file or pipe is told of it."""

_LINE_EVERY_S = 60.0
"""How long an epoch may take before a file or pipe is told how far it is."""

_LINES = 10
_LARGE_LOSS = 1e5
"""About a run of reinforcement learning."""

_NARROWEST_BAR, _WIDEST_BAR = 10, 40
_SPINNER = "|/-\\"


def tell(console: Console, text: str) -> None:
    """Print a sentence: on a terminal it is wrapped between words, elsewhere it stays one line."""
    console.print(text, highlight=False, markup=False, soft_wrap=not console.is_terminal)


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 epoch", "2 epochs"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "es" if noun.endswith("s") else "s")


@final
class StatusLine:
    """The last line of a terminal, while something goes on; elsewhere lines, and only after a while.

    What does not fit is left out: first the bar, then the last of the words.  Use as a context manager.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._words: Sequence[str] = ()
        self._completed, self._total, self._began_s = 0, 0, time.monotonic()
        self._timer: threading.Timer | None = None
        self._live = Live(
            self,
            console=console,
            auto_refresh=console.is_interactive,
            transient=True,
            redirect_stdout=True,
            redirect_stderr=sys.stderr.isatty(),
        )

    def phase(self, what: str) -> None:
        """Something begins that nobody can say the length of."""
        self._stop_timer()
        self._words, self._total = (f"{what} ...",), 0
        if not self._console.is_interactive and not self._console.quiet:
            self._timer = threading.Timer(_SILENCE_S, tell, [self._console, f"{what} ..."])
            self._timer.daemon = True
            self._timer.start()

    def show(self, words: Sequence[str], completed: int, total: int) -> None:
        """How far it is, the most important words first."""
        self._stop_timer()
        if not self._total:
            self._began_s = time.monotonic()
        self._words, self._completed, self._total = words, completed, total

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        words = list(self._words)
        if self._total and self._completed:
            elapsed_s = time.monotonic() - self._began_s
            words.append(f"{clock(elapsed_s * (self._total - self._completed) / self._completed)} left")
        room = options.max_width - 1
        while len(words) > 1 and len("  ".join(words)) > room:
            words.pop()
        line = "  ".join(words)
        if not self._total:
            line += f" {_SPINNER[int(time.monotonic() * 8) % len(_SPINNER)]}" if line else ""
        yield Text(line, no_wrap=True, overflow="crop", end="")
        width = min(room - len(line) - 2, _WIDEST_BAR)
        if self._total and width >= _NARROWEST_BAR:
            yield Text("  ", end="")
            yield ProgressBar(self._total, self._completed, width=width)

    def __enter__(self) -> Self:
        if self._console.is_interactive and not self._console.quiet:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_timer()
        self._live.stop()

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None


@final
class RunsDisplay:
    """Several runs, one after another: which one it is, and how long all that are left may take.

    Elsewhere than on a terminal a line for each.  total: of them.  Use as a context manager.
    """

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total, self._number = console, total, 0
        self._status = StatusLine(console)
        self._words: list[str] = []
        self._began_s = time.monotonic()

    def begin(self, what: str) -> None:
        """The next run begins."""
        self._number += 1
        self._words = [f"run {self._number} of {self._total}", what] if self._total > 1 else [what]
        if self._total == 1 or self._console.is_interactive:
            self._status.phase("  ".join(self._words))
            return
        done, elapsed_s = self._number - 1, time.monotonic() - self._began_s
        left = f" ({clock(elapsed_s / done * (self._total - done))} left)" if done else ""
        tell(self._console, f"{self._words[0]}: {what}{left}")

    def show(self, step: Step) -> None:
        """Take note of a step of the run."""
        done = (self._number - 1) * step.num_steps + step.step
        self._status.show([*self._words, f"epoch {step.epoch + 1}"], done, self._total * step.num_steps)

    def __enter__(self) -> Self:
        self._status.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.__exit__(kind, error, trace)


def clock(seconds: float) -> str:
    """A duration: "0:07", "12:34", "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def loss_text(loss: float) -> str:
    """A loss in few characters, however large."""
    return f"{loss:.4f}" if loss < _LARGE_LOSS else f"{loss:.3e}"


def tested(accuracy: float | None, loss: float, num_samples: int) -> str:
    """What came out of a test, as a sentence."""
    if accuracy is None:
        return f"Test loss {loss:.5g} on {num_samples:,} unseen samples."
    return f"Test accuracy {accuracy:.2%} on {num_samples:,} unseen samples (loss {loss_text(loss)})."


@final
class ProgressDisplay:
    """Shows the progress of training on `console`."""

    def __init__(
        self, console: Console, status: StatusLine, num_steps: int, per_epoch: int, *, has_accuracy: bool
    ) -> None:
        """num_steps: of the whole run.  per_epoch: of them.  has_accuracy: whether there is one to show."""
        self._console, self._status = console, status
        self._num_steps, self._per_epoch = num_steps, per_epoch
        self._epochs = -(-num_steps // per_epoch)
        self._has_accuracy = has_accuracy
        self._told_s = time.monotonic()

    def show(self, step: Step) -> None:
        """Take note of a step."""
        per_epoch = self._per_epoch
        numbers = [f"loss {loss_text(step.loss)}"]
        if self._has_accuracy:
            numbers.append(f"accuracy {step.accuracy:.2%}")
        numbers.append(f"{step.samples_per_second:,.0f} samples/s")
        epoch = f"epoch {step.epoch + 1}/{self._epochs}"
        in_epoch = f"step {step.step - step.epoch * per_epoch}/{per_epoch}"
        is_over = step.step % per_epoch == 0
        is_late = not self._console.is_interactive and time.monotonic() - self._told_s > _LINE_EVERY_S
        if is_over or is_late:
            tell(self._console, "  ".join([epoch, *([] if is_over else [in_epoch]), *numbers]))
            self._told_s = time.monotonic()
        self._status.show([epoch, in_epoch, *numbers], step.step, self._num_steps)

    def on_validation(self, trainer: Trainer, validated: Validated) -> None:
        """Take note of a validation; it is a callback of `Trainer.fit`."""
        accuracy = "" if validated.accuracy is None else f"  accuracy {validated.accuracy:.2%}"
        measured = "".join(f"  {words}" for words in metrics_in_words(validated.metrics))
        tell(self._console, f"validation  loss {loss_text(validated.loss)}{accuracy}{measured}")


@final
class LearningDisplay:
    """Shows on `console` how a policy is learning, with a line for every tenth of the way.  last: as above."""

    last: LearningProgress | None = None

    def __init__(self, console: Console, status: StatusLine) -> None:
        self._console, self._status = console, status
        self._since: list[LearningProgress] = []

    def show(self, progress: LearningProgress) -> None:
        """Take note of an iteration."""
        self.last = progress
        self._since.append(progress)
        done, total = progress.iteration + 1, progress.iterations
        episodes = sum(one.num_episodes for one in self._since)
        returns = sum(one.num_episodes * one.mean_return for one in self._since if one.num_episodes)
        rate = float(np.mean([one.steps_per_second for one in self._since]))
        words = [
            f"iteration {done}/{total}",
            f"mean return {returns / episodes:.1f}" if episodes else "no episode ended",
            f"{rate:,.0f} steps/s",
        ]
        self._status.show(words, done, total)
        if done * _LINES // total > progress.iteration * _LINES // total:
            tell(self._console, "  ".join(words))
            self._since.clear()
