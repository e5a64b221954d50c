"""Tables have all their numbers, however narrow the terminal is."""

from __future__ import annotations

import pytest
from rich.table import Table

from dist_relu.cli.tables import print_table


def test_no_number_loses_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = [str(10**11 + number) for number in range(20)]
    table = Table(box=None)
    for number in numbers:
        table.add_column(number, no_wrap=True)
    table.add_row(*numbers)
    print_table(table)
    assert capsys.readouterr().out.split() == [*numbers, *numbers]
