"""How much faster training is on more workers, and how much of each worker that uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dist_relu.reports.plots.style import GREY, PLAIN, Form, draw, legend_below, look

Estimate = tuple[float, float, float]
"""A value, and the bounds of its interval."""

_ASIDE = 0.25
"""Over so much of a doubling of workers curves are spread, so that their intervals don't cover one another."""


@dataclass(frozen=True)
class ScalingCurve:
    """A series of numbers of workers, with what was measured on each."""

    name: str
    workers: Sequence[int]
    speed_up: Sequence[Estimate]
    efficiency: Sequence[Estimate]


def draw_scaling(curves: Sequence[ScalingCurve], path: Path, *, form: Form = PLAIN, about: str = "") -> None:
    """Two panels: the speed-up beside the ideal one, and the efficiency in %, with their 95 % intervals."""

    def paint(speeds: Any, shares: Any) -> None:
        numbers = sorted({number for curve in curves for number in curve.workers})
        least = numbers[0]
        speeds.plot(numbers, [number / least for number in numbers], color=GREY, linestyle="--", label="ideal")
        shares.axhline(100, color=GREY, linestyle="--")
        for number, curve in enumerate(curves):
            aside = 2 ** (_ASIDE * ((number + 0.5) / len(curves) - 0.5))
            places = [aside * each for each in curve.workers]
            _errorbar(speeds, places, curve.speed_up, 1, curve.name, number)
            _errorbar(shares, places, curve.efficiency, 100, curve.name, number)
        speeds.set(title="speed-up", xlabel="workers", ylabel=f"samples/s beside\n{least} worker{'s' * (least > 1)}")
        shares.set(title="efficiency", xlabel="workers", ylabel="% of the\nideal speed-up", ylim=(0, None))
        for axes in (speeds, shares):
            axes.set_xscale("log", base=2)
            axes.set_xticks(numbers, [str(each) for each in numbers])
            axes.minorticks_off()
        speeds.set_yscale("log", base=2)
        speeds.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        legend_below(speeds)

    draw(2, paint, path, form=form, about=about, note="Bars: 95 % intervals, by the bootstrap.")


def _errorbar(
    axes: Any, places: Sequence[float], estimates: Sequence[Estimate], scale: float, name: str, number: int
) -> None:
    values = [scale * value for value, _, _ in estimates]
    below = [max(value - scale * low, 0.0) for value, (_, low, _) in zip(values, estimates, strict=True)]
    above = [max(scale * high - value, 0.0) for value, (_, _, high) in zip(values, estimates, strict=True)]
    axes.errorbar(places, values, [below, above], capsize=3, label=name, **look(number))
