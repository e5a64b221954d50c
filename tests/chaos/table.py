"""What disturbances have come to, as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass
class Row:
    """A kind of disturbance.  times: how often.  survived: of these.  equal: of these ended with the same bits.

    seconds: that recoveries have taken.  phases: in which workers were struck.  troubles: what went wrong.
    """

    disturbance: str
    times: int = 0
    survived: int = 0
    equal: int = 0
    seconds: list[float] = field(default_factory=list)
    phases: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)

    def note(self, times: int, digest: str | None, undisturbed: str | None, seconds: Sequence[float]) -> None:
        """Note a training that was disturbed so often.  A digest is None if that training did not end."""
        self.times += times
        self.survived += times * (digest is not None)
        self.equal += times * (digest == undisturbed)
        self.seconds += seconds

    @property
    def is_good(self) -> bool:
        return self.equal == self.times > 0 and not self.troubles


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out for a terminal."""
    cells = [["disturbance", "times", "survived", "bits equal", "median recovery", "worst recovery"]]
    for row in rows:
        times = [f"{median(row.seconds):.2f} s", f"{max(row.seconds):.2f} s"] if row.seconds else ["", ""]
        cells.append([row.disturbance, *map(str, (row.times, row.survived, row.equal)), *times])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])
        for cells in cells
    )
