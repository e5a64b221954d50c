"""How a command shows that it is getting on: a live bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from dist_relu.training import Progress as Step

_WIDE = 80
"""Columns of a terminal that has room for a bar."""


@final
class ProgressDisplay:
    """Shows the progress of training on `console`.  has_classes: whether there is an accuracy to show."""

    def __init__(self, console: Console, epochs: int, *, has_classes: bool) -> None:
        self._console = console
        self._epochs = epochs
        self._has_classes = has_classes
        wide: list[ProgressColumn] = [
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
        ]
        narrow: list[ProgressColumn] = [TextColumn("{task.fields[epoch]}  {task.fields[state]}")]
        columns = wide if console.width >= _WIDE else narrow
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal, expand=True)
        self._task = self._bar.add_task("", total=None, epoch=f"1/{epochs}", state="starting")

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
        self._bar.update(self._task, total=step.num_steps, completed=step.step, epoch=epoch, state=state)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
