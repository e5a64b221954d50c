"""How a command shows that it is getting on: a live bar on a terminal, some lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self, final

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from dist_relu.rl import LearningProgress
from dist_relu.training import Progress as Step

_WIDE = 80
"""Columns of a terminal that has room for a bar."""
_LINES = 10
"""About a run of reinforcement learning."""


@final
class ProgressDisplay:
    """Shows the progress of training on `console`.  has_classes: whether there is an accuracy to show."""

    def __init__(self, console: Console, epochs: int, *, has_classes: bool) -> None:
        self._console = console
        self._epochs = epochs
        self._has_classes = has_classes
        self._bar = _bar(console, "epoch")
        self._task = self._bar.add_task("", total=None, round=f"1/{epochs}", state="starting")

    def show(self, step: Step) -> None:
        """Take note of a step."""
        end_of_epoch = step.step % (step.num_steps // self._epochs) == 0
        state = f"loss {step.loss:.4f}"
        if self._has_classes:
            state += f"  accuracy {step.accuracy:.2%}"
        state += f"  {step.samples_per_second:,.0f} samples/s"
        if not self._console.is_terminal:
            if end_of_epoch:
                self._console.print(f"epoch {step.epoch + 1}/{self._epochs}  {state}", highlight=False, soft_wrap=True)
            return
        epoch = f"{step.epoch + 1}/{self._epochs}"
        self._bar.update(self._task, total=step.num_steps, completed=step.step, round=epoch, state=state)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


@final
class LearningDisplay:
    """Shows on `console` how a policy is learning: elsewhere than on a terminal a line for every tenth of the way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = _bar(console, "iteration")
        self._task = self._bar.add_task("", total=None, round="1", state="starting")
        self._since: list[LearningProgress] = []

    def show(self, progress: LearningProgress) -> None:
        """Take note of an iteration."""
        self._since.append(progress)
        done, total = progress.iteration + 1, progress.iterations
        at_end_of_part = done * _LINES // total > progress.iteration * _LINES // total
        episodes = sum(one.num_episodes for one in self._since)
        returns = sum(one.num_episodes * one.mean_return for one in self._since if one.num_episodes)
        rate = float(np.mean([one.steps_per_second for one in self._since]))
        state = f"mean return {returns / episodes:.1f}" if episodes else "no episode ended"
        state += f"  {rate:,.0f} steps/s"
        self._bar.update(self._task, total=total, completed=done, round=f"{done}/{total}", state=state)
        if at_end_of_part:
            if not self._console.is_terminal:
                self._console.print(f"iteration {done}/{total}  {state}", highlight=False, soft_wrap=True)
            self._since.clear()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


def _bar(console: Console, noun: str) -> Progress:
    """A bar for tasks with the fields `round`, of which `noun` tells what it counts, and `state`."""
    wide: list[ProgressColumn] = [
        TextColumn(noun + " {task.fields[round]}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    ]
    narrow: list[ProgressColumn] = [TextColumn("{task.fields[round]}  {task.fields[state]}")]
    columns = wide if console.width >= _WIDE else narrow
    return Progress(*columns, console=console, disable=not console.is_terminal, expand=True)
