"""What `dist-relu bench` has measured, as tables on the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from dist_relu.cli.tables import print_table
from dist_relu.core import machine
from dist_relu.reports.plots.sums import SumCurves

if TYPE_CHECKING:
    from dist_relu.bench.checkpoints import Cost
    from dist_relu.bench.estimators import Fit
    from dist_relu.bench.kernels import Timing as ActivationTiming
    from dist_relu.bench.learning import Learning
    from dist_relu.bench.parallel import Comparison as Parallel
    from dist_relu.bench.products import Speeds
    from dist_relu.bench.serving import Load
    from dist_relu.bench.starting import Beginning
    from dist_relu.bench.step import Comparison, Timing
    from dist_relu.bench.sums import Timing as SumTiming
    from dist_relu.bench.watching import Watching
    from dist_relu.scaling import Row


def show(table: Table, *, is_complete: bool = True) -> None:
    """Print a table, and below it on which machine it was measured.  is_complete: its title says so if it is not."""
    if not is_complete:
        table.title = f"{table.title} (incomplete)"
    for column in table.columns[1:]:
        column.justify = "right"
    table.box, table.pad_edge, table.title_justify, table.caption_justify = None, False, "left", "left"
    table.caption = f"{machine.cpu_name()}, {machine.num_cores()} cores, {machine.blas_name()}"
    for column in table.columns:
        column.no_wrap = True
    print_table(table)


def as_markdown(table: Table) -> str:
    """Write a table in Markdown, below its title."""
    rows = zip(*(column.cells for column in table.columns), strict=True)
    lines = [[str(column.header) for column in table.columns], ["---"] * len(table.columns), *map(list, rows)]
    return f"{table.title}:\n\n" + "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def estimators_table(fits: Sequence[Fit], epochs: int) -> Table:
    """Fits of ours beside scikit-learn's."""
    table = Table("type", "cores", "ours s", "MLPClassifier s", "MLPClassifier/ours", "our accuracy", "MLPClassifier's")
    table.title = f"Fit of a network with 100 hidden units, {epochs} epochs, with start and end of workers"
    for fit in fits:
        seconds = f"{fit.ours_s:.2f}", f"{fit.sklearn_s:.2f}", f"{fit.ratio:.2f}"
        table.add_row(fit.dtype, str(fit.cores), *seconds, f"{fit.our_accuracy:.2%}", f"{fit.sklearn_accuracy:.2%}")
    return table


def checkpoints_table(results: Sequence[Cost]) -> Table:
    """A run with checkpoints in each folder beside one without."""
    table = Table("case", "folder", "without ms", "with ms", "cost", title="Training step, median")
    for r in results:
        table.add_row(r.case, r.folder, f"{r.plain_ms:.3f}", f"{r.saved_ms:.3f}", f"{r.cost:+.2%}")
    return table


def kernels_table(timings: Sequence[ActivationTiming]) -> Table:
    """Every activation in both directions."""
    table = Table("activation", "direction", "dist_relu ms", "of copy bandwidth", "torch ms", "torch/ours")
    table.title = "float32, 16 MB, one thread, median"
    for t in timings:
        theirs = ["", ""]
        if t.torch_ms is not None:
            theirs = [f"{t.torch_ms:.2f}{'*' if t.fresh else ' '}", f"{t.torch_ms / t.ours_ms:.2f}"]
        table.add_row(t.activation, t.direction, f"{t.ours_ms:.2f}", f"{t.copy_share:.0%}", *theirs)
    return table


def serving_table(loads: Sequence[Load], clients: int) -> Table:
    """Every server under its load."""
    table = Table("server", "requests", "lost", "a second", "p50 ms", "p90 ms", "p99 ms", "worst ms")
    table.title = f"One sample a request as JSON, mlp:256,128, {clients} clients"
    for r in loads:
        times = [f"{ms:.1f}" for ms in (r.p50_ms, r.p90_ms, r.p99_ms, r.worst_ms)]
        table.add_row(r.server, f"{r.requests:,}", str(r.lost), f"{r.per_second:,.0f}", *times)
    return table


def step_table(comparison: Comparison) -> Table:
    """Every case beside every peer, on one core."""
    sets = ", ".join(f"{side} {name}" for side, name in comparison.instruction_sets.items())
    table = Table(
        title=f"Training step, SGD with momentum, one core, peak {comparison.peak_gflops:.0f} GFLOP/s; {sets}"
    )
    peers = [side for side in comparison.instruction_sets if side != "ours"]
    columns = [column for peer in peers for column in (f"{peer} ms", f"{peer}/ours")]
    for column in ("case", "ours ms", *columns, "at most", "of peak"):
        table.add_column(column)
    for t in comparison.timings:
        cells = [text for peer in peers for text in (milliseconds(t.peers_ms[peer]), f"{t.ratios[peer]:.2f}")]
        table.add_row(t.case, milliseconds(t.ours_ms), *cells, _bounds(t), f"{t.peak_share:.0%}")
    return table


def parallel_tables(comparison: Parallel) -> list[Table]:
    """Every case beside every peer on several cores: steps, and if they were measured memory and starts."""
    workers = f"{comparison.workers} workers on {comparison.cores} cores"
    peers = [side for side in comparison.sides if side != "ours"]
    steps = Table("case", "ours ms", title=f"Training step, SGD with momentum, {workers}")
    for column in (*(f"{peer}/ours" for peer in peers), "best/ours", "of peak"):
        steps.add_column(column)
    for one in comparison.cases:
        t = one.timing
        ratios = [f"{t.ratios[peer]:.2f}" if peer in t.ratios else "" for peer in peers]
        best = f"{t.best_ratio:.2f}" if t.ratios else ""
        steps.add_row(t.case, milliseconds(t.ours_ms), *ratios, best, f"{t.peak_share:.0%}")
    started = [one for one in comparison.cases if one.footprints]
    if not started:
        return [steps]
    memory = Table("case", "ours MB", title=f"Most memory of all processes of a side, {workers}")
    starts = Table("case", "ours s", title=f"From the start of a side until its first step is done, {workers}")
    for peer in peers:
        for table, unit in ((memory, "MB"), (starts, "s")):
            table.add_column(f"{peer} {unit}")
            table.add_column("/ours")
    for one in started:
        sizes = {side: each.peak_bytes / 1e6 for side, each in one.footprints.items()}
        seconds = {side: each.first_step_s for side, each in one.footprints.items()}
        memory.add_row(one.timing.case, *_beside_ours(sizes, peers, 0))
        starts.add_row(one.timing.case, *_beside_ours(seconds, peers, 2))
    return [steps, memory, starts]


def _beside_ours(values: Mapping[str, float], peers: Sequence[str], digits: int) -> list[str]:
    """Write our value, and of every peer its own and their ratio; nothing of those that have none."""
    cells = [f"{values['ours']:,.{digits}f}"]
    for peer in peers:
        there = peer in values
        cells += [f"{values[peer]:,.{digits}f}", f"{values[peer] / values['ours']:.2f}"] if there else ["", ""]
    return cells


def instruction_sets_table(comparisons: Mapping[str, Comparison]) -> Table:
    """Every case with one instruction set beside the same with another, by their names."""
    peaks = ", ".join(f"{name} {comparison.peak_gflops:.0f} GFLOP/s" for name, comparison in comparisons.items())
    table = Table("case", title=f"Training step, SGD with momentum, one core (peaks: {peaks})")
    cells: dict[str, list[str]] = {}
    for name, comparison in comparisons.items():
        peers = [side for side in comparison.instruction_sets if side != "ours"]
        for column in (f"{name} ms", *(f"{peer}/ours" for peer in peers), "at most", "of peak"):
            table.add_column(column)
        for t in comparison.timings:
            ratios = [f"{t.ratios[peer]:.2f}" for peer in peers]
            cells.setdefault(t.case, []).extend([milliseconds(t.ours_ms), *ratios, _bounds(t), f"{t.peak_share:.0%}"])
    for case, row in cells.items():
        table.add_row(case, *row)
    return table


def _bounds(t: Timing) -> str:
    """Write what the ratios could be at most, in their order."""
    return ", ".join(f"{bound:.2f}" for bound in t.bounds.values())


def products_table(all_speeds: Sequence[Speeds]) -> Table:
    """Every shape and direction, for each instruction set."""
    peaks = ", ".join(f"{s.instruction_set} {s.peak_gflops:.0f} GFLOP/s" for s in all_speeds)
    table = Table("batch", "inputs", "outputs", "direction", title=f"Products of dense layers (peaks: {peaks})")
    for speeds in all_speeds:
        table.add_column(f"{speeds.instruction_set} GFLOP/s")
        table.add_column("of peak")
    first, *_ = all_speeds  # none has more
    for i in range(len(first.speeds)):
        row = [speeds.speeds[i] for speeds in all_speeds if i < len(speeds.speeds)]
        cells = [text for speed in row for text in (f"{speed.gflops:.0f}", f"{speed.share:.0%}")]
        table.add_row(str(row[0].batch_size), str(row[0].inputs), str(row[0].outputs), row[0].direction, *cells)
    return table


def scaling_table(rows: Mapping[str, Row]) -> Table:
    """Several workers beside one, by the names of cases."""
    workers = next(iter(rows.values())).point.workers
    table = Table("case", f"{workers} workers ms", "speed-up", "efficiency", "95 % interval")
    table.title = f"{workers} workers beside one, step by step"
    if any(row.is_busy or row.is_ratio_busy for row in rows.values()):
        table.title += "; * others used the machine meanwhile"
    for case, row in rows.items():
        share, mark = row.efficiency * 100, "*" * row.is_ratio_busy
        interval = f"{share.low:.1f} to {share.high:.1f} %"
        step = f"{milliseconds(row.step_s.value * 1e3)}{'*' * row.is_busy}"
        table.add_row(case, step, f"{row.speed_up.value:.2f}{mark}", f"{share.value:.1f} %{mark}", interval)
    return table


def sums_table(timings: Sequence[SumTiming]) -> Table:
    """Sums of all sizes over some workers."""
    peers = list(timings[0].peers_ms)
    table = Table("size", "ours ms", "bound ms", "ours/bound", title=f"Sum over {timings[0].where}, median")
    for peer in peers:
        table.add_column(f"{peer} ms")
        table.add_column("/ours")
    for t in timings:
        cells = [
            text for peer in peers for text in (milliseconds(t.peers_ms[peer]), f"{t.peers_ms[peer] / t.ours_ms:.2f}")
        ]
        of_bound = f"{t.ours_ms / t.bound_ms:.2f}"
        size = f"{t.size_bytes / 1e3:,.0f} kB"
        table.add_row(size, milliseconds(t.ours_ms), milliseconds(t.bound_ms), of_bound, *cells)
    return table


def sum_curves(timings: Sequence[SumTiming]) -> SumCurves:
    """The same for a picture."""
    times = {"dist_relu": [t.ours_ms for t in timings]}
    times |= {peer: [t.peers_ms[peer] for t in timings] for peer in timings[0].peers_ms}
    return SumCurves(timings[0].where, [t.size_bytes for t in timings], times, [t.bound_ms for t in timings])


def watching_table(results: Sequence[Watching]) -> Table:
    """Runs with a watch beside one without."""
    title = f"Training step with a watch and without, {_counted(results[0].workers)}, median"
    table = Table("case", "no watch ms", "between ms", "watched ms", "between", "watched", title=title)
    for r in results:
        times = (f"{ms:.3f}" for ms in (r.plain_ms, r.between_ms, r.watched_ms))
        table.add_row(r.case, *times, f"{r.between_cost:+.1%}", f"{r.watched_cost:+.1%}")
    return table


def learning_table(r: Learning) -> Table:
    """Learning on several workers beside one."""
    table = Table(title=f"{r.env}, PPO, {r.steps:,} steps, median")
    for column in ("environment", "1 worker steps/s", f"{r.workers} workers steps/s", "speed-up"):
        table.add_column(column)
    table.add_row(r.env, f"{r.one_per_s:,.0f}", f"{r.several_per_s:,.0f}", f"{r.speed_up:.2f}")
    return table


def starting_table(results: Sequence[Beginning]) -> Table:
    """How long programs take."""
    table = Table("program", "s", title="From the start of a program to its end, median")
    for r in results:
        table.add_row(r.program, f"{r.seconds:.2f}")
    return table


def milliseconds(ms: float) -> str:
    """Write a time with three digits or so."""
    return f"{ms:.4f}" if ms < 0.1 else f"{ms:.3f}" if ms < 10 else f"{ms:.1f}"


def _counted(workers: int) -> str:
    return "one worker" if workers == 1 else f"{workers} workers"
