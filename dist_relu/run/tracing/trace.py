"""What a user holds of a traced run."""

from __future__ import annotations

from pathlib import Path
from typing import final

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_int
from dist_relu.engine.plan import StepPlan
from dist_relu.nn import Sequential
from dist_relu.run.tracing.chrome import write_trace
from dist_relu.run.tracing.log import TraceLog
from dist_relu.run.tracing.phases import phases_of, step_table
from dist_relu.run.tracing.summary import Phases


@final
class Trace:
    """Where the time of a run's steps goes, on every worker: pass it to `Coordinator.fit` or `Coordinator.trainer`.

        trace = dr.Trace()
        coordinator.fit(model, data, optimizer, epochs=3, batch_size=128, trace=trace)
        print(trace.phases())
        trace.save("trace.json")

    Each step of each worker is cut into phases: gathering samples, forward and backward by layer, adding gradients,
    waiting for workers and for nodes, update. That costs less than 1 % of steps that take 100 us or more; where layers
    would cost more, whole passes or steps are told. Bits stay the same. Nodes compare their clocks, so that all is on
    one.

    steps: so many are traced, the first ones of the run.
    """

    steps = 10_000

    def __init__(self, *, steps: int = steps) -> None:
        self.steps = check_int("steps", steps)
        self._log: TraceLog | None = None

    def __repr__(self) -> str:
        return f"Trace(steps={self.steps})"

    @property
    def num_traced(self) -> int:
        """How many steps are traced by now."""
        return sum(segment.stop - segment.first for segment in self._log.segments) if self._log else 0

    def phases(self) -> Phases:
        """What the phases of all steps come to; `print` it to read it in words.

        Raises ValueError where no step was traced.
        """
        return phases_of(self._traced())

    def table(self) -> Array:
        """How long every worker was in each phase of every step, in seconds.

        A structured array (steps · workers,) with the fields "step", "worker", and one for each phase: "gather",
        "forward", "loss", "backward", "add", "sum", "wait", "exchange", "update", "between", and "pass" for what of a
        pass is not told apart.

        Raises ValueError where no step was traced.
        """
        return step_table(self._traced())

    def save(self, path: str | Path) -> None:
        """Write it in Chrome's trace event format, which https://ui.perfetto.dev and chrome://tracing open.

        Raises ValueError where no step was traced, `WriteError`.
        """
        write_trace(path, self._traced())

    def log_of(self, model: Sequential, plan: StepPlan) -> TraceLog:
        """Begin to trace a run.  Raises ValueError where this is another run's trace."""
        if self._log is not None:
            raise ValueError("This trace belongs to another run: make a new one, Trace(), for each.")
        self._log = TraceLog(model, plan, self.steps)
        return self._log

    def _traced(self) -> TraceLog:
        if not self._log or not self._log.segments:
            raise ValueError("No step was traced: pass the trace to fit, trace=..., and take a step.")
        return self._log
