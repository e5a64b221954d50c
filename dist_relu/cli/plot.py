"""`dist-relu plot ...`: pictures of what `analyze` and `train --log-dir` have written."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from dist_relu.analysis import Course, GradientFlow, LayerActivations, TimeFlow
from dist_relu.analysis.examples import fit_curve
from dist_relu.analysis.plane import PLANE_TRAINING, SETS, check_plane, plane_of, train_on_plane
from dist_relu.checkpoint import load_model
from dist_relu.cli.commands import Commands
from dist_relu.cli.common import check_installed, check_writable, model_file, new_attempts, tell_left_out, usage_errors
from dist_relu.cli.parsing import parse_model
from dist_relu.cli.types import SEED
from dist_relu.coordinator import start
from dist_relu.core.untrusted import made, parse_json, read_file
from dist_relu.data import load
from dist_relu.engine.arguments import loss_for
from dist_relu.reports import plots
from dist_relu.reports.logs import Logs, in_words, read_logs
from dist_relu.reports.plots.style import EXPECTED_NAME, SUFFIXES, Form
from dist_relu.run.learning_rate import LearningRateCurve
from dist_relu.run.tracing.chrome import phases_in
from dist_relu.run.tracing.summary import Phases

T = TypeVar("T")

_MOST_BYTES = 2**30

_Existing = click.Path(exists=True, path_type=Path)
_Folder = click.Path(exists=True, file_okay=False, path_type=Path)

seed_option = click.option(
    "--seed", type=SEED, default=0, show_default=True, help="Fixes the samples and the first weights."
)


def _picture(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options of every picture, which commands get as `paths` and `form`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_form(title: str | None, width: float | None, dpi: int, **options: Any) -> None:
            command(form=Form(title, width, dpi), **options)

        for option in reversed(
            (
                click.option(
                    "--output",
                    "paths",
                    multiple=True,
                    type=click.Path(dir_okay=False, path_type=Path),
                    default=[default],
                    show_default=True,
                    metavar="FILE",
                    help="Write the picture to FILE, a .png, .svg or .pdf file; may be given several times.",
                ),
                click.option("--title", help="Put this above the picture. Default: what is known of the run."),
                click.option(
                    "--width",
                    type=click.FloatRange(4, 40),
                    metavar="INCHES",
                    help="Make the picture so wide; its height follows.",
                ),
                click.option(
                    "--dpi",
                    type=click.IntRange(20, 1200),
                    default=Form.dpi,
                    show_default=True,
                    help="Give a .png file so many pixels for each inch.",
                ),
            )
        ):
            with_form = option(with_form)
        return with_form

    return decorate


@click.group(cls=Commands)
def plot() -> None:
    """Draw pictures of what `analyze` and `train --log-dir` have written."""


@plot.command()
@click.argument("source", metavar="FILE|LOGS", type=_Existing)
@_picture("gradients.png")
def gradients(source: Path, paths: Sequence[Path], form: Form) -> None:
    """Gradients: by layer, from what `analyze gradients --json FILE` wrote, or over the steps of a run.

    LOGS: the folder that `train --log-dir` wrote; then also by how much weights changed.
    """
    _check(paths)
    with usage_errors():
        if source.is_dir():
            logs = _logs(source)
            _draw(paths, lambda path: plots.draw_gradients_over_time(logs.steps, path, form=form, about=_about(logs)))
        else:
            flows, about = _read(source, "analyze gradients", _flows)
            _draw(paths, lambda path: plots.draw_gradients(flows, path, form=form, about=about))


@plot.command()
@click.argument("source", metavar="FILE", type=_Existing)
@_picture("recurrence.png")
def recurrence(source: Path, paths: Sequence[Path], form: Form) -> None:
    """Gradients by step, from what `analyze recurrence --json FILE` wrote."""
    _check(paths)
    with usage_errors():
        flows, about = _read(source, "analyze recurrence", _time_flows)
        _draw(paths, lambda path: plots.draw_recurrence(flows, path, form=form, about=about))


@plot.command()
@click.argument("source", metavar="FILE|LOGS", type=_Existing)
@_picture("activations.png")
def activations(source: Path, paths: Sequence[Path], form: Form) -> None:
    """Zeros and dead units: by layer, from what `analyze activations --json FILE` wrote, or over the steps of a run.

    LOGS: the folder that `train --log-dir` wrote.
    """
    _check(paths)
    with usage_errors():
        if source.is_dir():
            logs = _logs(source)
            _draw(
                paths,
                lambda path: plots.draw_activations_over_time(
                    logs.steps, logs.epochs, path, form=form, about=_about(logs)
                ),
            )
        else:
            layers, about = _read(source, "analyze activations", _layers)
            _draw(paths, lambda path: plots.draw_activations(layers, path, form=form, about=about))


@plot.command()
@click.argument("source", metavar="LOGS", type=_Folder)
@_picture("preactivations.png")
def preactivations(source: Path, paths: Sequence[Path], form: Form) -> None:
    """Distributions of what goes into activations, over the steps of a run: of LOGS that `train --log-dir` wrote."""
    _check(paths)
    with usage_errors():
        logs = _logs(source)
        _draw(paths, lambda path: plots.draw_preactivations(logs.steps, path, form=form, about=_about(logs)))


@plot.command()
@click.argument("sources", metavar="LOGS...", type=_Folder, nargs=-1, required=True)
@_picture("curves.png")
def curves(sources: Sequence[Path], paths: Sequence[Path], form: Form) -> None:
    """Loss and accuracy over the steps of one or several runs, from the folders that `train --log-dir` wrote."""
    _check(paths)
    with usage_errors():
        names = [source.name for source in sources]
        if len(set(names)) < len(names):
            names = list(map(str, sources))
        runs = {name: _logs(source) for name, source in zip(names, sources, strict=True)}
        steps = {name: logs.steps for name, logs in runs.items()}
        validations = {name: logs.validations for name, logs in runs.items()}
        _draw(
            paths,
            lambda path: plots.draw_curves(
                steps, path, validations=validations, form=form, about=_about(*runs.values())
            ),
        )


@plot.command()
@click.argument("source", metavar="FILE", type=_Existing)
@_picture("training.png")
def training(source: Path, paths: Sequence[Path], form: Form) -> None:
    """Loss, norm of the gradient and sparsity over steps, from what `analyze training --json FILE` wrote."""
    _check(paths)
    with usage_errors():
        courses, about = _read(source, "analyze training", _courses)
        _draw(paths, lambda path: plots.draw_training(courses, path, form=form, about=about))


@plot.command("learning-rate")
@click.argument("source", metavar="FILE", type=_Existing)
@_picture("learning-rate.png")
def draw_rates(source: Path, paths: Sequence[Path], form: Form) -> None:
    """The loss at ever higher learning rates, from what `analyze learning-rate --json FILE` wrote."""
    _check(paths)
    with usage_errors():
        curve, about = _read(source, "analyze learning-rate", _rates)
        _draw(paths, lambda path: plots.draw_learning_rate(curve, path, form=form, about=about))


@plot.command("phases")
@click.argument("source", metavar="FILE", type=_Existing)
@_picture("phases.png")
def draw_phases_of(source: Path, paths: Sequence[Path], form: Form) -> None:
    """Where the time of steps went, by worker and by layer, from what `train --trace FILE` wrote; says it, too."""
    _check(paths)
    with usage_errors():
        phases, _ = _read(source, "train --trace FILE", _phases, option="")
        _draw(paths, lambda path: plots.draw_phases(phases, path, form=form))
    click.echo(str(phases))


@plot.command()
@_picture("relu.png")
@seed_option
def relu(paths: Sequence[Path], form: Form, seed: int) -> None:
    """ReLU beside a linear function: its derivative, and a curve that only a network with ReLU can learn."""
    _check(paths)
    with start(1, backend="serial") as coordinator:
        fit = fit_curve(coordinator, seed)
    _draw(paths, lambda path: plots.draw_relu(fit, path, form=form))


@plot.command()
@_picture("family.png")
def family(paths: Sequence[Path], form: Form) -> None:
    """All activations of one number, with their derivatives."""
    _check(paths)
    _draw(paths, lambda path: plots.draw_family(path, form=form))


@plot.command()
@click.argument("model_path", metavar="MODEL|LOGS", type=_Existing)
@click.option(
    "--shape", metavar="HEIGHT,WIDTH[,CHANNELS]", help="The shape of the images. Default: the model's, or a square."
)
@_picture("weights.png")
def weights(model_path: Path, shape: str | None, paths: Sequence[Path], form: Form) -> None:
    """The weights of the first layer of a saved MODEL, as images: of a dense layer, or the filters of a convolution.

    LOGS: the folder that `train --log-dir` wrote, with the model that was trained.
    """
    _check(paths)
    model = load_model(model_file(model_path))
    with usage_errors():
        image_shape = _parse_shape(shape) if shape else None
        _draw(paths, lambda path: plots.draw_weights(model, path, image_shape, form=form))


@plot.command()
@click.option(
    "--data",
    "source",
    metavar="DATA",
    default="moons",
    show_default=True,
    help=f"The data set: {', '.join(SETS)}, or a .npz file.",
)
@click.option(
    "--model",
    "model_text",
    default="mlp:16,16",
    show_default=True,
    help="The network: mlp:UNITS,UNITS,..., which is trained, or a saved model, or the folder of a run.",
    metavar="MODEL",
)
@_picture("boundary.png")
@seed_option
def boundary(source: str, model_text: str, paths: Sequence[Path], form: Form, seed: int) -> None:
    """The line that a network draws between classes in the plane, and the kinks of its ReLUs.

    Samples are two numbers each. The network is trained with Adam on the data, if it is not a saved one.
    """
    _check(paths)
    is_saved = Path(model_text).exists() or Path(model_text).suffix == ".safetensors"
    with usage_errors():
        if source not in SETS and not source.endswith(".npz"):
            raise ValueError(f"--data {source}: expected {', '.join(SETS)}, or a .npz file.")
        data = SETS[source](seed) if source in SETS else load(source)
        check_plane(data)
        model = load_model(model_file(Path(model_text))) if is_saved else parse_model(model_text, data, "float32")
        model.build((2,))
        for part in data.parts:
            loss_for(part, model.loss).check(part.y, model.output_shape)
    about = f"{Path(model_text).name} on {source}" if is_saved else f"{model_text} on {source}, {PLANE_TRAINING}"
    with start(1, backend="serial") as coordinator:
        if not is_saved:
            train_on_plane(coordinator, model, data, seed)
        plane = plane_of(coordinator, model, data)
    _draw(paths, lambda path: plots.draw_boundary(plane, path, form=form, about=about))


def _parse_shape(text: str) -> tuple[int, ...]:
    sizes = text.split(",")
    if len(sizes) not in {2, 3} or not all(size.strip().isdecimal() and int(size) for size in sizes):
        raise ValueError(f"--shape {text}: expected HEIGHT,WIDTH or HEIGHT,WIDTH,CHANNELS.")
    return tuple(map(int, sizes))


def _check(paths: Sequence[Path]) -> None:
    """Fail before the work rather than after it."""
    check_installed("Pictures", "matplotlib")
    for path in paths:
        check_writable("--output", path)
        if path.suffix not in SUFFIXES:
            raise click.UsageError(f"--output {path}: {EXPECTED_NAME}.")


def _draw(paths: Sequence[Path], draw: Callable[[Path], None]) -> None:
    """Draw a picture into each of some files, and name them: one that can't be written costs none of the others."""
    attempts = new_attempts()
    for path in paths:
        with attempts.writing(path):
            draw(path)
            click.echo(f"Wrote {path}.")
    attempts.check()


def _read(source: Path, command: str, parse: Callable[[Any], T], option: str = " --json") -> tuple[T, str]:
    """What a command wrote, with an option, and a title for it.  Raises ValueError for any other file."""
    try:
        content = made(dict[str, Any], parse_json(read_file(source, _MOST_BYTES)))
        parsed, about = parse(content), ", ".join(in_words(content))
    except (ValueError, RecursionError, IsADirectoryError, KeyError, TypeError, AttributeError, OverflowError):
        parsed = None
    if not parsed:
        raise ValueError(f"{source}: expected a file that `dist-relu {command}{option}` wrote.")
    return parsed, about


def _logs(folder: Path) -> Logs:
    """A log folder with steps.  Raises ValueError for one without."""
    logs = read_logs(folder)
    tell_left_out(folder, logs.left_out)
    if not logs.steps:
        raise ValueError(f"{folder} holds no steps yet.")
    return logs


def _about(*runs: Logs) -> str:
    """What is known of runs, as far as it is the same of all."""
    known = [in_words(logs.run.options) if logs.run else [] for logs in runs]
    return ", ".join(part for part in known[0] if all(part in parts for parts in known))


def _flows(content: dict[str, Any]) -> dict[str, GradientFlow]:
    return {
        made(str, run["activation"] or run["model"]): made(
            GradientFlow, {name: run[name] for name in ("loss", "outputs", "weights")}
        )
        for run in content["runs"]
    }


def _courses(content: dict[str, Any]) -> dict[str, list[Course]]:
    courses: dict[str, list[Course]] = {}
    for run in content["runs"]:
        course = made(Course, {field.name: run[field.name] for field in fields(Course)})
        if len({len(course.steps), len(course.loss), len(course.gradient_norm), len(course.sparsity)}) > 1:
            raise ValueError("steps and what was seen in them differ in number")
        courses.setdefault(made(str, run["activation"]), []).append(course)
    return courses


def _time_flows(content: dict[str, Any]) -> dict[str, TimeFlow]:
    return {
        made(str, run["init"]): made(TimeFlow, {"name": run["name"], "norms": run["norms"]}) for run in content["runs"]
    }


def _layers(content: dict[str, Any]) -> list[LayerActivations]:
    layers = made(list[LayerActivations], content["layers"])
    for layer in layers:
        if layer.num_units < 1 or layer.variance < 0:
            raise ValueError(f"{layer.name} has {layer.num_units} units and a variance of {layer.variance}")
    return layers


def _phases(content: dict[str, Any]) -> Phases:
    phases = made(Phases, phases_in(content))
    num_workers = len(phases.workers)
    if not num_workers or phases.num_steps < 1 or phases.step_seconds < 0 or phases.seconds <= 0:
        raise ValueError("there are no steps in it")
    if any(len(worker.waits_for) < num_workers or worker.seconds <= 0 for worker in phases.workers):
        raise ValueError("waits and workers differ in number")
    if any(len(times) != 2 for times in phases.layers.values()):
        raise ValueError("layers have other times than forward and backward")
    return phases


def _rates(content: dict[str, Any]) -> LearningRateCurve:
    curve = made(LearningRateCurve, {field.name: content[field.name] for field in fields(LearningRateCurve)})
    if not 0 < len(curve.rates) == len(curve.losses) == len(curve.smoothed) or min(curve.rates) <= 0:
        raise ValueError("rates and losses differ in number")
    return curve
