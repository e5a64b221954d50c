"""Where a network for samples of two numbers draws the line between classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dist_relu.analysis.plane import Plane
from dist_relu.core.arrays import Array
from dist_relu.reports.plots.style import COLOURS, MARKERS, PLAIN, Form, draw, legend_below

_LINE_COLOUR, _LINE_WIDTH = "black", 1.6


def draw_boundary(plane: Plane, path: Path, *, form: Form = PLAIN, about: str = "") -> None:
    """The samples on the classes that the network sees; and the kinks of its ReLUs, which cut the plane in pieces.

    On every piece the network is linear. Without a ReLU there is the first panel alone.
    """
    classes = plane.probabilities.shape[-1]
    colours = [COLOURS[number % len(COLOURS)] for number in range(classes)]

    def paint(boundary: Any, pieces: Any = None) -> None:
        for axes in (boundary, pieces):
            if axes is not None:
                _paint_classes(axes, plane, colours)
                axes.set(xlabel="first feature", xlim=plane.across[[0, -1]], ylim=plane.up[[0, -1]])
                axes.grid(visible=False)
        boundary.set_ylabel("second feature")
        for label, colour in enumerate(colours):
            points = plane.x[plane.y == label]
            marker = MARKERS[label % len(MARKERS)]
            boundary.plot(
                *points.T,
                marker,
                color=colour,
                markersize=4,
                markeredgecolor="white",
                markeredgewidth=0.5,
                label=f"class {label}",
            )
        boundary.set_title(f"classes: {plane.accuracy:.1%} of unseen samples right")
        if pieces is not None:
            for number, (name, kinks) in enumerate(plane.kinks.items()):
                colour = COLOURS[(number + 2) % len(COLOURS)]
                for unit in np.moveaxis(kinks, -1, 0):
                    if unit.min() < 0 < unit.max():
                        pieces.contour(plane.across, plane.up, unit, [0], colors=[colour], linewidths=0.7)
                pieces.plot([], [], color=colour, label=f"kinks of {name}")
            pieces.set_title(f"{plane.num_pieces:,} linear pieces in view")

        boundary.plot([], [], color=_LINE_COLOUR, linewidth=_LINE_WIDTH, label="boundary between classes")
        legend_below(*filter(None, (boundary, pieces)))

    note = "A class has the lighter colour the less sure the network is of it."
    draw(2 if plane.kinks else 1, paint, path, panel_inches=(5.0, 4.4), form=form, about=about, note=note)


def _paint_classes(axes: Any, plane: Plane, colours: list[str]) -> None:
    """Each class in a light colour, lighter where the network is less sure, and lines where classes meet."""
    from matplotlib.colors import to_rgb

    light = 1 - 0.45 * (1 - np.array([to_rgb(colour) for colour in colours]))
    image = plane.probabilities @ light
    extent = (*plane.across[[0, -1]], *plane.up[[0, -1]])
    axes.imshow(image, origin="lower", extent=extent, aspect="auto", interpolation="bilinear")
    for label in range(1, len(colours)):
        lead = _lead(plane.probabilities, label)
        if lead.min() < 0 < lead.max():
            axes.contour(plane.across, plane.up, lead, [0], colors=[_LINE_COLOUR], linewidths=_LINE_WIDTH)


def _lead(probabilities: Array, label: int) -> Array:
    """By how much a class leads before the best other one."""
    lead: Array = probabilities[..., label] - np.delete(probabilities, label, axis=-1).max(axis=-1)
    return lead
