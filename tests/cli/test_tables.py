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


def test_no_number_loses_its_end_below_a_heading_of_several_words(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(box=None)
    for heading in ["ms"] * 5 + ["a heading that has several words"] * 4:
        table.add_column(heading, no_wrap=True)
    table.add_row(*["0.0215"] * 9)
    print_table(table)
    assert capsys.readouterr().out.split().count("0.0215") == 9
