"""Metrics as text: their names, a table of classes, the confusion matrix, and a line for each number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dist_relu.core.arrays import Array

_MOST_CLASSES = 30
"""A larger confusion matrix fits no terminal."""

_LONGEST_NAME = 20


def names_in(text: str | None) -> list[str]:
    """The names in a list with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()] if text else []


def told(metrics: Mapping[str, Any], classes: Sequence[str] | None) -> str:
    """What was measured, to be read.  classes: their names."""
    numbers = [(name, value) for name, value in metrics.items() if isinstance(value, float)]
    parts = []
    if numbers:
        width = max(len(name) for name, _ in numbers)
        parts.append("\n".join(f"{name:<{width}}  {_number(value)}" for name, value in numbers))
    if "report" in metrics:
        parts.append(_report(metrics["report"]))
    if "calibration" in metrics:
        parts.append(_calibration(**metrics["calibration"]))
    if "confusion" in metrics:
        parts.append(_confusion(metrics["confusion"], classes))
    return "\n\n".join(parts)


def _report(report: Mapping[str, Mapping[str, float]]) -> str:
    columns = ("precision", "recall", "f1", "support")
    rows = [
        [_short(name), *(_number(row[column]) for column in columns[:-1]), f"{row['support']:,.10g}"]
        for name, row in report.items()
    ]
    return _table(["class", *columns], rows)


def _calibration(prob_true: Array, prob_pred: Array) -> str:
    rows = [[_number(predicted), _number(true)] for true, predicted in zip(prob_true, prob_pred, strict=True)]
    return _table(["probability", "was so"], rows)


def _confusion(matrix: Array, classes: Sequence[str] | None) -> str:
    size = len(matrix)
    names = list(map(_short, classes)) if classes else [str(number) for number in range(size)]
    if matrix.ndim == 3:
        header = ["label", "true negatives", "false positives", "false negatives", "true positives"]
        cells = [list(map(_count, counts.ravel())) for counts in matrix]
        return _table(header, [[name, *row] for name, row in zip(names, cells, strict=True)])
    if size > _MOST_CLASSES:
        return f"The confusion matrix of {size} classes is in the file that --json names."
    rows = [[name, *map(_count, row)] for name, row in zip(names, matrix, strict=True)]
    return _table(["true \\ predicted", *names], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns, the first one to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{'<' if not place else '>'}{widths[place]}}" for place, cell in enumerate(row)).rstrip()
        for row in (header, *rows)
    )


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4f}" if abs(value) < 1e4 else f"{value:.5g}"


def _count(value: Any) -> str:
    return f"{value:.10g}"


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."
