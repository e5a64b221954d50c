"""Tables on a terminal."""

from __future__ import annotations

import sys

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

_WIDTH = 120
"""Of lines that go elsewhere than to a terminal."""

_WIDEST = 10_000


def print_table(table: Table) -> None:
    """Print a table on standard output; a terminal that is too narrow wraps its lines, so no number loses its end."""
    for column in table.columns:
        if column.no_wrap:  # of which rich would cut off what is longer than the longest word
            column.min_width = max(map(cell_len, map(str, [column.header, *column.cells])))
    width = Console().width if sys.stdout.isatty() else _WIDTH
    Console(width=max(width, Console(width=_WIDEST).measure(table).minimum)).print(table)
