"""How training would scale over nodes, and what a step on them would consist of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dist_relu.reports.plots.scaling import Estimate
from dist_relu.reports.plots.style import GREY, PLAIN, Form, draw, legend_below, log_scale, look

_NAMED_PER_INCH = 1.5
"""So many numbers of nodes fit below a panel."""

_PARTS = (("#d0d0d0", ""), ("#a0a0a0", ""), ("#ffffff", "////"), ("#555555", ""))
"""Greys and hatches of the parts of a step: colours are those of series, in the same legend."""


@dataclass(frozen=True)
class ForecastCurve:
    """What is forecast of one series, by the number of nodes.

    parts_s: the parts of a step, by name, in s.  limits: what costs most of the time that is lost, in words.
    enough_batch: with which batch efficiency is 80 %; None: with none.  node_bytes: memory that a node shares.
    costs: of a million samples; none where nodes have no price.  simulated: speed-ups; none where nothing was.
    """

    name: str
    nodes: Sequence[int]
    speed_up: Sequence[Estimate]
    efficiency: Sequence[Estimate]
    parts_s: Mapping[str, Sequence[float]]
    limits: Sequence[str]
    enough_batch: Sequence[int | None]
    node_bytes: Sequence[int]
    costs: Sequence[float] = ()
    simulated: Sequence[float] = ()


def draw_forecast(
    curves: Sequence[ForecastCurve], path: Path, *, workers_per_node: int = 1, form: Form = PLAIN, about: str = ""
) -> None:
    """Four panels: speed-up, efficiency, parts of a step of the first series, and the batch with 80 % efficiency.

    The parts are shares of the step, one bar for each number of nodes.
    """

    def paint(speeds: Any, shares: Any, parts: Any, batches: Any) -> None:
        numbers = _numbers(curves)
        ideal = [number * workers_per_node for number in numbers]
        speeds.plot(numbers, ideal, color=GREY, linestyle="--", label="ideal")
        shares.axhline(100, color=GREY, linestyle="--")
        shares.axhline(80, color=GREY, linestyle=":")
        for number, curve in enumerate(curves):
            _band(speeds, curve.nodes, curve.speed_up, 1, curve.name, number)
            _band(shares, curve.nodes, curve.efficiency, 100, curve.name, number)
            if curve.simulated:
                label = f"{curve.name}, simulated"
                speeds.plot(curve.nodes, curve.simulated, color=look(number)["color"], linestyle=":", label=label)
            known = [(at, batch) for at, batch in zip(curve.nodes, curve.enough_batch, strict=True) if batch and at > 1]
            batches.plot([at for at, _ in known], [batch for _, batch in known], label=curve.name, **look(number))
        speeds.set(title="speed-up", ylabel="samples/s beside\none worker")
        shares.set(title="efficiency", ylabel="% of the\nideal speed-up", ylim=(0, None))
        batches.set(title="batch with 80 % efficiency", ylabel="samples over\nall nodes")
        for axes in (speeds, shares, batches):
            _over_nodes(axes, numbers)
        speeds.set_yscale("log", base=2)
        speeds.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        log_scale(batches)
        if not any(len(line.get_xdata()) for line in batches.lines):
            batches.set_yticks([])
            batches.text(0.5, 0.5, "no batch has it", ha="center", transform=batches.transAxes)
        _bars(parts, curves[0])
        legend_below(speeds, parts)

    note = f"Shades: 95 % intervals. Dotted: 80 %. {_limits(curves[0])}"
    if len(curves) > 1:
        note += f" That, and parts of a step: {curves[0].name}."
    draw(2, paint, path, rows=2, form=form, about=about, note=note)


def draw_node_costs(curves: Sequence[ForecastCurve], path: Path, *, form: Form = PLAIN, about: str = "") -> None:
    """One panel or two: what memory a node shares, and what a million samples cost where nodes have a price."""

    def paint(memory: Any, *priced: Any) -> None:
        numbers = _numbers(curves)
        for number, curve in enumerate(curves):
            memory.plot(curve.nodes, [size / 1e6 for size in curve.node_bytes], label=curve.name, **look(number))
            for axes in priced:
                axes.plot(curve.nodes, curve.costs, label=curve.name, **look(number))
        memory.set(title="memory of a node", ylabel="MB that its\nworkers share")
        for axes in priced:
            axes.set(title="cost of a million samples", ylabel="in the unit\nof the price")
        for axes in (memory, *priced):
            _over_nodes(axes, numbers)
        log_scale(memory, *priced)
        legend_below(memory)

    draw(1 + bool(curves[0].costs), paint, path, form=form, about=about)


def _numbers(curves: Sequence[ForecastCurve]) -> list[int]:
    return sorted({number for curve in curves for number in curve.nodes})


def _over_nodes(axes: Any, numbers: Sequence[int]) -> None:
    axes.set(xlabel="nodes")
    axes.set_xscale("log", base=2)
    shown = numbers[:: _every(axes, len(numbers))]
    axes.set_xticks(shown, [str(each) for each in shown])
    axes.minorticks_off()


def _limits(curve: ForecastCurve) -> str:
    """Say in a sentence what limits the speed-up, from which number of nodes on."""
    before = ["nothing", *curve.limits]
    starts = [
        f"{limit} from {nodes:,} nodes"
        for last, limit, nodes in zip(before, curve.limits, curve.nodes, strict=False)
        if limit not in (last, "nothing")
    ]
    return f"Limited by {', '.join(starts)}." if starts else "Nothing limits it."


def _band(axes: Any, nodes: Sequence[int], estimates: Sequence[Estimate], scale: float, name: str, number: int) -> None:
    style = look(number)
    axes.plot(nodes, [scale * value for value, _, _ in estimates], label=name, **style)
    lows, highs = ([scale * each[i] for each in estimates] for i in (1, 2))
    axes.fill_between(nodes, lows, highs, color=style["color"], alpha=0.2, linewidth=0)


def _bars(axes: Any, curve: ForecastCurve) -> None:
    """Stacked bars: parts of a step in % of it."""
    places = range(len(curve.nodes))
    totals = [sum(values) for values in zip(*curve.parts_s.values(), strict=True)]
    below = [0.0] * len(curve.nodes)
    for (grey, hatch), (name, values) in zip(_PARTS, curve.parts_s.items(), strict=False):
        heights = [100 * value / total for value, total in zip(values, totals, strict=True)]
        axes.bar(
            places,
            heights,
            bottom=below,
            color=grey,
            hatch=hatch,
            edgecolor="#444444",
            linewidth=0.4,
            label=name,
            width=0.8,
        )
        below = [low + height for low, height in zip(below, heights, strict=True)]
    shown = list(places)[:: _every(axes, len(curve.nodes))]
    axes.set_xticks(shown, [str(curve.nodes[place]) for place in shown])
    axes.set(title="parts of a step", xlabel="nodes", ylabel="% of the step", ylim=(0, 100))


def _every(axes: Any, number: int) -> int:
    """Tell how many numbers of nodes there are to one that is named."""
    width = axes.figure.get_figwidth() / axes.get_gridspec().ncols
    return -(-number // max(int(_NAMED_PER_INCH * width), 2))
