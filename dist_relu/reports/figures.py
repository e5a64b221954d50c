"""The pictures of a page, each with words for those who don't see it."""

from __future__ import annotations

import re
import tempfile
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dist_relu.checkpoint import load_model
from dist_relu.engine.results import Validated
from dist_relu.engine.watch.records import EpochSummary, WatchedStep
from dist_relu.nn import Sequential
from dist_relu.reports import plots
from dist_relu.reports.logs import Logs
from dist_relu.reports.plots.activity import hidden_layers, layers_with_preactivations
from dist_relu.reports.plots.curves import measured_names

_PX_PER_POINT = 2.0


@dataclass(frozen=True)
class Figure:
    """alternative: the picture in words.  source: a data URI of SVG.  widest_px: beyond that it only gets coarse."""

    title: str
    caption: str
    alternative: str
    source: str
    widest_px: int


def figures(logs: Logs, name: str) -> list[Figure]:
    """What can be drawn of the steps of a run."""
    steps, epochs = logs.steps, logs.epochs
    if not steps:
        return []
    shown = [
        Figure(
            "Learning",
            "What the samples of each watched step came to before it"
            + (", and the validations of the run." if logs.validations else "."),
            _curves_in_words(steps, logs.validations),
            *_svg(partial(plots.draw_curves, {name: steps}, validations={name: logs.validations})),
        ),
        Figure(
            "Gradients and changes of weights",
            "Euclidean norms, before anything is clipped; the change of a step over the weights before it.",
            _gradients_in_words(steps),
            *_svg(partial(plots.draw_gradients_over_time, steps)),
        ),
        Figure(
            "Sparsity and dead units",
            "Of each layer's outputs; a unit is a place on the last axis, for images a channel. In a watched step it "
            "is silent when it is 0 for all samples; dead when it is 0 for every sample of an epoch, in all steps.",
            _activity_in_words(steps, epochs),
            *_svg(partial(plots.draw_activations_over_time, steps, epochs)),
        ),
    ]
    if layers_with_preactivations(steps):
        shown.append(
            Figure(
                "Pre-activations",
                "How what goes into activations is distributed: a column for each watched step. What lies below 0 is "
                "what ReLU cuts off.",
                _preactivations_in_words(steps),
                *_svg(partial(plots.draw_preactivations, steps)),
            )
        )
    return shown


def weights_figure(path: Path, data: str) -> Figure | None:
    """The first weights of a saved model, if they are images; data: what it was trained on, as `--data` names it.

    Raises CheckpointError for a model with layers of the user's own.
    """
    model = load_model(path)
    if not _sees_images(model, data):
        return None
    try:
        source, widest_px = _svg(partial(plots.draw_weights, model))
    except ValueError:
        return None
    words = "A grid of small images, one for each unit: the weights from the pixels, red above 0 and blue below."
    caption = "Each image is a unit: its output rises with the pixels in red and falls with those in blue."
    return Figure("Weights of the first layer", caption, words, source, widest_px)


def _sees_images(model: Sequential, data: str) -> bool:
    """Rows of numbers are images where the data set says so, or the model."""
    of_images = any(len(shape) == 3 for shape in (model.input_shape, *model.layer_shapes))
    return of_images or not (data.endswith(".npz") or data.startswith("adding:"))


def _svg(draw: Callable[[Path], None]) -> tuple[str, int]:
    """Source and largest width of a `Figure`: that where its letters are half as large again as those around it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.svg"
        draw(path)
        content = path.read_bytes()
    width = re.search(rb' width="([\d.]+)pt"', content)
    assert width is not None
    points = float(width[1])
    return f"data:image/svg+xml;base64,{b64encode(content).decode()}", round(points * _PX_PER_POINT)


def _curves_in_words(steps: Sequence[WatchedStep], validations: Sequence[Validated]) -> str:
    first, last = steps[0], steps[-1]
    words = f"From step {first.step} to step {last.step} the loss goes from {first.loss:.4g} to {last.loss:.4g}"
    if first.accuracy is not None and last.accuracy is not None:
        words += f", the accuracy from {first.accuracy:.1%} to {last.accuracy:.1%}"
    if validations:
        words += f", the loss of validations from {validations[0].loss:.4g} to {validations[-1].loss:.4g}"
    for name in measured_names(validations):
        values = [validated.metrics[name] for validated in validations if name in validated.metrics]
        words += f", {name} from {values[0]:.4g} to {values[-1]:.4g}"
    return words + "."


def _gradients_in_words(steps: Sequence[WatchedStep]) -> str:
    ends = zip(steps[0].params, steps[-1].params, strict=True)
    norms = [
        f"{before.name} from {before.gradient_norm:.3g} to {after.gradient_norm:.3g}"
        for before, after in ends
        if before.name.endswith("weight")
    ]
    return f"Norms of gradients, from the first to the last watched step: {'; '.join(norms) or 'no weights'}."


def _activity_in_words(steps: Sequence[WatchedStep], epochs: Sequence[EpochSummary]) -> str:
    dead = (epochs[-1].dead if epochs else None) or {}
    layers = [
        f"{layer.name} {steps[-1].layers[number].sparsity:.1%} zeros"
        + (f" and {len(dead[layer.name])} of {layer.num_units} units dead" if layer.name in dead else "")
        for number, layer in hidden_layers(steps)
    ]
    return f"In the end: {'; '.join(layers)}."


def _preactivations_in_words(steps: Sequence[WatchedStep]) -> str:
    """The share of what lies below 0."""
    shares = []
    for number, name in layers_with_preactivations(steps):
        ends = [steps[end].layers[number].preactivations or [0] for end in (0, -1)]
        below = [sum(counts[: len(counts) // 2]) / max(sum(counts), 1) for counts in ends]
        shares.append(f"into {name} from {below[0]:.1%} to {below[1]:.1%}")
    return f"The share of pre-activations below 0 goes, from the first to the last watched step, {'; '.join(shares)}."
