"""What the steps of a run have come to, as far as it stands."""

from __future__ import annotations

from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.engine.loop import MAX_SKIPPED
from dist_relu.engine.memory import STEP_RECORD

_FEW = 20


@final
class History:
    """The records of all steps, of `STEP_RECORD`; they come in parts."""

    def __init__(self, records: Array | None = None) -> None:
        self._parts = [np.empty(0, STEP_RECORD) if records is None else records]

    @property
    def records(self) -> Array:
        """(steps,)."""
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0]

    def append(self, records: Array) -> None:
        """Add those of the next steps."""
        self._parts.append(records)

    def cut(self, step: int) -> None:
        """Forget all steps from this number on."""
        self._parts = [self.records[:step]]

    @property
    def num_skipped(self) -> int:
        """How many of the last steps, one after another, were skipped."""
        records = self.records
        was_taken = np.isfinite(records["loss"][-MAX_SKIPPED:])
        return len(was_taken) - (int(np.flatnonzero(was_taken)[-1]) + 1 if was_taken.any() else 0)

    def seconds_per_step(self) -> float | None:
        """About how long a step takes, by the last ones; None where nobody knows."""
        last = self._parts[-1]["seconds"][-_FEW:]
        return float(np.median(last)) if len(last) else None
