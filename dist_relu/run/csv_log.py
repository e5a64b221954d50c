"""A table of a run's epochs as a file, for spreadsheets and plots."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from dist_relu.core.checks import check_fields, check_path
from dist_relu.core.files import Attempts, append_to_file, write_file
from dist_relu.core.untrusted import read_file
from dist_relu.engine.results import Validated
from dist_relu.engine.watch.records import EpochSummary
from dist_relu.errors import TrainingWarning
from dist_relu.metrics.named import is_number
from dist_relu.run.trainer import Trainer

_COLUMNS = ("epoch", "step", "loss", "accuracy", "validation_loss", "validation_accuracy", "lr", "seconds")
_PREFIX = "validation_"
_MOST_BYTES = 2**28


@final
@dataclass(eq=False)
class CSVLog:
    """Writes a line for every epoch that ends.

    Its columns are epoch, step, loss, accuracy, validation_loss, validation_accuracy, lr, seconds, and what validations
    measure by `Trainer.fit(metrics=...)`, as validation_f1_macro.  step: how many are complete.  validation_*: of the
    epoch's last validation.  lr: with which the run goes on.  What is not known is empty.

    The file can be read at any moment. A run that goes on goes on with its file, from which lines of epochs that it has
    not reached yet are taken out; one that begins replaces it. What can't be written is warned of once, training goes
    on, and the next line is written with all before it.
    """

    path: str | Path
    _measured: list[str] = field(init=False, default_factory=list, repr=False)  # in columns behind the others
    _lines: list[str] = field(init=False, default_factory=list, repr=False)
    _is_whole: bool = field(init=False, default=False, repr=False)
    _validated: Validated | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, path=check_path)

    def on_fit_begin(self, trainer: Trainer, *, validates: bool) -> None:
        """Raise ValueError for a file that is no such log, and WriteError for one that can't be written."""
        self._attempts = Attempts(lambda message: warnings.warn(message, TrainingWarning, stacklevel=2))
        self._validated = None
        measured, lines = self._read(up_to=trainer.step)
        self._measured = measured if lines else []
        new = [name for name in trainer.metrics if name not in self._measured]
        self._measured += new
        self._lines = [line.rstrip("\n") + "," * len(new) + "\n" for line in lines]
        self._write_all()

    def on_validation(self, trainer: Trainer, validated: Validated) -> None:
        self._validated = validated

    def on_epoch_end(self, trainer: Trainer, summary: EpochSummary) -> None:
        validated, self._validated = self._validated, None
        row = [summary.epoch, trainer.step, summary.loss, summary.accuracy]
        row += [validated.loss, validated.accuracy] if validated else [None, None]
        measured = validated.metrics if validated else {}
        self._write([*row, trainer.lr, summary.seconds, *map(measured.get, self._measured)])

    def on_fit_end(self, trainer: Trainer) -> None:
        """Write what could not be written."""
        if not self._is_whole:
            with self._attempts.writing(self.path):
                self._write_all()

    def _write(self, row: list[Any]) -> None:
        line = _line(row)
        self._lines.append(line)
        with self._attempts.writing(self.path):
            if self._is_whole:
                self._is_whole = False
                append_to_file(self.path, line)
                self._is_whole = True
            else:
                self._write_all()

    def _write_all(self) -> None:
        header = _line([*_COLUMNS, *(_PREFIX + name for name in self._measured)])
        write_file(self.path, "".join([header, *self._lines]))
        self._is_whole = True

    def _read(self, up_to: int) -> tuple[list[str], list[str]]:
        """Read what the file that is there has measured, and its lines up to that of so many complete steps."""
        if not Path(self.path).is_file():
            return [], []
        first, *lines = read_file(self.path, _MOST_BYTES).decode(errors="replace").splitlines(keepends=True) or [""]
        if not first:
            return [], []
        columns = first.removesuffix("\n").split(",")
        known, others = columns[: len(_COLUMNS)], columns[len(_COLUMNS) :]
        measured = [name.removeprefix(_PREFIX) for name in others if name.startswith(_PREFIX)]
        if known != [*_COLUMNS] or len(measured) < len(others) or not all(map(is_number, measured)):
            raise ValueError(f"{self.path} is no log of CSVLog: it does not begin with {','.join(_COLUMNS)}.")
        whole = [line for line in lines if (step := _step(line, len(columns))) is not None and step <= up_to]
        return measured, whole


def _line(row: list[Any]) -> str:
    """A line of the file; None becomes nothing."""
    return ",".join("" if value is None else str(value) for value in row) + "\n"


def _step(line: str, num_columns: int) -> int | None:
    """How many steps were complete by a line of the file; None for what is no whole line."""
    found = re.fullmatch(rf"\d+,(\d+)(,[^,]*){{{num_columns - 2}}}\n", line)
    return int(found[1]) if found else None
