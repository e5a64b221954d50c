"""Tables and curves in HTML, for notebooks: readable on light and dark pages, since they take their colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from math import isfinite

_MOST_ROWS = 100
_WIDTH, _HEIGHT = 240, 48


def number_text(value: object) -> str:
    """A cell's text: numbers in few digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def share_text(value: float | None) -> str | None:
    """A share as a percentage; None stays."""
    return None if value is None else f"{value:.2%}"


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]], below: str = "") -> str:
    """A table, each of whose cells is escaped; of many rows the last ones are left out.

    The first column is text, others are numbers.  below: HTML that stands under it.
    """
    shown = [*rows]
    left_out = len(shown) - _MOST_ROWS
    caption = f'<caption align="left" style="text-align:left;color:inherit">{escape(title)}</caption>' if title else ""
    return "".join(
        [
            '<div style="font-size:90%"><table cellpadding="3" style="border-collapse:collapse;text-align:right">',
            caption,
            f'<thead style="border-bottom:1px solid rgba(128,128,128,.5)">{_row("th", header)}</thead><tbody>',
            *(_row("td", map(number_text, row)) for row in shown[:_MOST_ROWS]),
            "</tbody></table>",
            f"<div>… and {left_out:,} more</div>" if left_out > 0 else "",
            below,
            "</div>",
        ]
    )


def curve(name: str, values: Iterable[float]) -> str:
    """A line over its steps, from the lowest of the values to the highest; nothing where there are not two.

    name: said to those who don't see it.
    """
    points = [(place, float(value)) for place, value in enumerate(values) if isfinite(value)]
    if len(points) < 2:
        return ""
    points = points[:: max(len(points) // _WIDTH, 1)]
    low, high = min(value for _, value in points), max(value for _, value in points)
    wide, tall = _WIDTH / max(points[-1][0], 1), (_HEIGHT - 4) / ((high - low) or 1.0)
    line = " ".join(f"{place * wide:.1f},{2 + (high - value) * tall:.1f}" for place, value in points)
    said = escape(f"{name}: from {points[0][1]:.4g} to {points[-1][1]:.4g}", quote=True)
    return (
        f'<svg role="img" aria-label="{said}" width="{_WIDTH}" height="{_HEIGHT}"><title>{said}</title>'
        f'<polyline points="{line}" fill="none" stroke="currentColor" stroke-width="1.5"/></svg>'
    )


def _row(tag: str, cells: Iterable[str]) -> str:
    """A row whose first cell begins at the left."""
    first, *others = map(escape, cells)
    return (
        f'<tr><{tag} style="text-align:left">{first}</{tag}>{"".join(f"<{tag}>{cell}</{tag}>" for cell in others)}</tr>'
    )
