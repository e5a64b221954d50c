"""How training goes, over its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from dist_relu.analysis.course import Course
from dist_relu.engine.results import Validated
from dist_relu.engine.watch.records import WatchedStep
from dist_relu.metrics.named import is_number
from dist_relu.reports.plots.style import (
    PLAIN,
    Form,
    as_label,
    draw,
    draw_course,
    legend_below,
    log_scale,
    look,
    sentences,
    smooth,
    smoothing_note,
    smoothing_width,
    watched_note,
)

_MOST_COLUMNS, _MOST_METRICS = 3, 4


def draw_curves(
    runs: Mapping[str, Sequence[WatchedStep]],
    path: Path,
    *,
    validations: Mapping[str, Sequence[Validated]] | None = None,
    form: Form = PLAIN,
    about: str = "",
) -> None:
    """Loss and, where there are classes, accuracy on the samples of the watched steps; runs: by their names.

    validations: of those runs that have any; they stand where their steps do, and what else they have measured has
    panels of its own.
    """
    has_classes = any(step.accuracy is not None for steps in runs.values() for step in steps)
    validated = {name: those for name, those in (validations or {}).items() if those}

    measured = measured_names([each for those in validated.values() for each in those])
    num_panels = 1 + has_classes + len(measured)
    columns = min(num_panels, _MOST_COLUMNS)

    def paint(loss: Any, *others: Any) -> None:
        accuracy = others[0] if has_classes else None
        for number, (name, steps) in enumerate(runs.items()):
            when = [step.step for step in steps]
            draw_course(loss, number, when, [step.loss for step in steps], name)
            if accuracy is not None and steps[0].accuracy is not None:
                draw_course(accuracy, number, when, [100 * (step.accuracy or 0) for step in steps], name)
            appearance = {**look(number), "linestyle": ":", "markerfacecolor": "white"}
            those = validated.get(name, ())
            label, every = as_label(f"{name}, validation"), max(len(those) // 8, 1)
            if those:
                when = [each.step for each in those]
                loss.plot(when, [each.loss for each in those], label=label, markevery=every, **appearance)
            if those and accuracy is not None:
                shares = [100 * (each.accuracy or 0) for each in those]
                accuracy.plot(when, shares, label=label, markevery=every, **appearance)
            for axes, metric in zip(others[has_classes:], measured, strict=False):
                values = [each.metrics.get(metric, nan) for each in those]
                axes.plot([each.step for each in those], values, label=label, markevery=every, **appearance)
        loss.set(title="loss", xlabel="step", ylabel="mean loss of a batch")
        log_scale(loss)
        if accuracy is not None:
            accuracy.set(title="accuracy", xlabel="step", ylabel="share of a batch in %")
        for axes, metric in zip(others[has_classes:], measured, strict=False):
            axes.set(title=metric, xlabel="step", ylabel="in validation")
        for axes in others[num_panels - 1 :]:
            axes.set_visible(False)
        if len(runs) > 1 or validated:
            legend_below(loss)

    note = sentences(
        "Of the samples that are trained on, before each step.",
        "Validation: of all samples that are held back for it." if validated else "",
        watched_note([step.step for step in max(runs.values(), key=len)]),
        smoothing_note(max(map(len, runs.values()))),
    )
    draw(columns, paint, path, rows=-(-num_panels // columns), form=form, about=about, note=note)


def measured_names(validations: Sequence[Validated]) -> list[str]:
    """What validations have measured besides loss and accuracy, as far as there is room for it."""
    found = dict.fromkeys(name for validated in validations for name in validated.metrics if is_number(name))
    return [*found][:_MOST_METRICS]


def draw_training(courses: Mapping[str, Sequence[Course]], path: Path, *, form: Form = PLAIN, about: str = "") -> None:
    """Loss, norm of the gradient and sparsity over the steps of several networks; courses: of each one's seeds.

    Lines are means over the seeds, in the shade around them lie all seeds. Runs that diverged are not drawn; the legend
    says how many did.
    """
    longest = max((run.steps for runs in courses.values() for run in runs), key=len)

    def paint(*panels: Any) -> None:
        for number, (name, runs) in enumerate(courses.items()):
            diverged = sum(run.diverged for run in runs)
            label = f"{name} ({diverged} of {len(runs)} diverged)" if diverged else name
            kept = [run for run in runs if not run.diverged]
            if not kept:
                panels[0].plot([], [], label=as_label(label), **look(number))
                continue
            num_steps = min(len(run.steps) for run in kept)
            when = kept[0].steps[:num_steps]
            for axes, quantity in zip(panels, ("loss", "gradient_norm", "sparsity"), strict=True):
                values = np.array([smooth(getattr(run, quantity)[:num_steps]) for run in kept])
                values *= 100 if quantity == "sparsity" else 1
                appearance = look(number)
                every = max(num_steps // 8, 1)
                axes.plot(when, values.mean(axis=0), label=as_label(label), markevery=every, **appearance)
                axes.fill_between(
                    when, values.min(axis=0), values.max(axis=0), color=appearance["color"], alpha=0.2, linewidth=0
                )
        loss, norm, sparsity = panels
        loss.set(title="loss", ylabel="mean loss of a batch")
        norm.set(title="gradient of all parameters", ylabel="norm")
        log_scale(loss, norm)
        sparsity.set(title="zeros in hidden layers", ylabel="share in %", ylim=(-2, 100))
        for axes in panels:
            axes.set_xlabel("step")
        legend_below(loss)

    num_seeds = max(map(len, courses.values()))
    width = smoothing_width(len(longest))
    note = sentences(
        f"Lines: means of {num_seeds} seeds; shades: from the lowest to the highest of them." if num_seeds > 1 else "",
        watched_note(longest),
        f"Each seed is smoothed: a point is the mean of up to {width} watched steps around it." if width > 1 else "",
    )
    draw(3, paint, path, panel_inches=(3.4, 3.3), form=form, about=about, note=note)
