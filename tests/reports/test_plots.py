"""Pictures can be read: whatever is drawn, words stay inside and legends cover nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text

import dist_relu as dr
from dist_relu import analysis, nn
from dist_relu.analysis.examples import CurveFit
from dist_relu.analysis.plane import Plane
from dist_relu.engine.watch.records import EpochSummary, WatchedLayer, WatchedParam, WatchedStep
from dist_relu.reports import plots
from dist_relu.reports.plots.activity import densities_of
from dist_relu.reports.plots.style import COLUMN, PLAIN, Form, smooth
from dist_relu.run.tracing.summary import WorkerPhases
from tests.cases import long

LONG = "a-run-whose-name-says-everything-about-it-" * 3
ODD = "_cost$100_and$more, 日本"
TITLE = "mlp:256,128 on /home/somebody/somewhere/in/a/folder/of/a/folder/data.npz, SGD, lr 0.1, seed 3, " * 2
FORMED = Form(title=LONG, width=9, dpi=60)
Draw = Callable[[Path, Form], None]


def layer(name: str, num_units: int, sparsity: float, silent: int, counts: list[int] | None) -> WatchedLayer:
    return WatchedLayer(
        name=name,
        num_units=num_units,
        sparsity=sparsity,
        silent=silent,
        mean=0.1,
        variance=1.0,
        preactivations=counts,
    )


def steps(num_steps: int, num_layers: int, *, kind: str = "ReLU", low: float = 1e-3) -> list[WatchedStep]:
    """Of a run that goes from 1 down to `low`."""
    rng, watched = np.random.default_rng(0), []
    for step, size in enumerate(np.geomspace(1, low, num_steps).tolist()):
        counts = np.histogram(rng.standard_normal(500) * size, dr.PREACTIVATION_EDGES)[0].tolist()
        layers = [layer(f"{2 * i + 1} {kind}", 50, 0.5, i, counts) for i in range(num_layers)]
        layers.append(layer(f"{2 * num_layers} Dense", 10, 0.0, 0, None))
        params = [
            WatchedParam(name=f"{2 * i}.weight", gradient_norm=size * (1 + i), update_ratio=size / 10)
            for i in range(num_layers + 1)
        ]
        watched.append(
            WatchedStep(
                step=10 * step,
                epoch=step // 5,
                loss=size,
                accuracy=1 - size,
                lr=0.1,
                samples_per_second=1e4,
                layers=layers,
                params=params,
            )
        )
    return watched


def epochs(watched: list[WatchedStep]) -> list[EpochSummary]:
    dead = {layer.name: list(range(layer.silent)) for layer in watched[0].layers}
    return [
        EpochSummary(epoch=epoch, loss=1.0, accuracy=0.5, seconds=1.0, dead=dead)
        for epoch in range(watched[-1].epoch + 1)
    ]


def flow(num_layers: int, low: float) -> analysis.GradientFlow:
    norms = np.geomspace(1, low, 2 * num_layers + 2).tolist()
    names = ["input", *(f"{i} {'Dense' if i % 2 == 0 else 'ReLU'}" for i in range(2 * num_layers + 1))]
    outputs = {name: analysis.Magnitude(norm, norm, norm) for name, norm in zip(names, norms, strict=True)}
    weights = {f"{i}.weight": analysis.Magnitude(norms[i], 1.0, 1.0) for i in range(0, 2 * num_layers + 1, 2)}
    return analysis.GradientFlow(loss=1.0, outputs=outputs, weights=weights)


def course(num_steps: int) -> analysis.Course:
    values = np.geomspace(1, 0.7, num_steps).tolist()
    return analysis.Course(
        steps=list(range(0, 10 * num_steps, 10)),
        loss=values,
        gradient_norm=values,
        sparsity=values,
        test_loss=0.5,
        test_accuracy=0.9,
    )


def rates(losses: list[float]) -> dr.LearningRateCurve:
    rising = np.geomspace(1e-6, 10, len(losses)).tolist()
    suggestion = rising[len(losses) // 2] if len(losses) > 10 else None
    return dr.LearningRateCurve(rates=rising, losses=losses, smoothed=losses, suggestion=suggestion)


def phases(num_workers: int) -> dr.Phases:
    times = dict.fromkeys(
        ("gather", "forward", "loss", "backward", "add", "wait", "exchange", "update", "between"), 0.1
    )
    workers = [
        WorkerPhases(
            rank=rank,
            host="vm",
            pid=rank,
            node=0,
            phases=times,
            waits_for=[0.0] * num_workers,
            network=0.0,
            critical=1.0,
            num_samples=10,
            lateness=None,
            marks_share=0.002,
        )
        for rank in range(num_workers)
    ]
    return dr.Phases(
        first=20,
        last=1019,
        num_steps=1000,
        seconds=1.0,
        step_seconds=1e-3,
        workers=workers,
        critical=times,
        layers={f"{2 * number} Dense+ReLU": [0.2, 0.3] for number in range(num_workers)},
        validation=0.0,
        callbacks=0.0,
        hidden=None,
        slow_node=None,
        num_nodes=1,
        num_comparisons=0,
        clock_error=0.0,
    )


def scaling(num_curves: int) -> list[plots.ScalingCurve]:
    """Each is named and slower than the one before."""
    workers = [1, 2, 4, 64]
    estimates = [[(n**power, 0.9 * n**power, 1.2 * n**power) for n in workers] for power in (0.9, -0.2)]
    return [plots.ScalingCurve(f"{LONG} {i}" if i else "mlp", workers, *estimates) for i in range(num_curves)]


def plane(num_classes: int) -> Plane:
    side = np.linspace(-1.0, 1.0, 21)
    across, up = np.meshgrid(side, side)
    scores = np.stack([across * np.cos(k) + up * np.sin(k) for k in range(num_classes)], axis=-1)
    probabilities = np.exp(3 * scores) / np.exp(3 * scores).sum(axis=-1, keepdims=True)
    kinks = {f"{2 * i + 1} ReLU": np.stack([across + 0.1 * i, up], axis=-1) for i in range(6)}
    x, y = np.random.default_rng(0).uniform(-1, 1, (50, 2)), np.arange(50) % num_classes
    return Plane(
        x=x, y=y, across=side, up=side, probabilities=probabilities, kinks=kinks, num_pieces=1000, accuracy=0.95
    )


def runs(number: int) -> dict[str, list[WatchedStep]]:
    names = [LONG, ODD, *(f"run {i}" for i in range(number))]
    return {name: steps(30 + 10 * i, 2) for i, name in enumerate(names[:number])}


def activations(number: int, kind: str) -> list[analysis.LayerActivations]:
    return [
        analysis.LayerActivations(name=f"{i} {kind}", num_units=50, sparsity=0.5, dead=[1, 2], mean=0.1, variance=1.0)
        for i in range(number)
    ]


def fit() -> CurveFit:
    x = np.linspace(-2, 2, 50)
    names = "linear layers", "with ReLU between them"
    outputs, losses = dict.fromkeys(names, x), dict.fromkeys(names, np.geomspace(1, 0.1, 500))
    return CurveFit(x=x, y=np.sin(x), grid=x, outputs=outputs, losses=losses)


OWN = "AnActivationOfTheUsersOwnWithAVeryLongName"
FEW, MANY = steps(2, 1, low=0.9), steps(100, 13)
UNNAMED = steps(5, 13, kind=OWN)
WEIGHTS = nn.mlp([70], 10).build((64,)).initialize()


def curves(num_runs: int) -> Draw:
    return lambda path, form: plots.draw_curves(runs(num_runs), path, form=form, about=TITLE)


def curves_with_validations(path: Path, form: Form) -> None:
    validations = {
        LONG: [dr.Validated(step=100 * i, epoch=i, loss=1 / (i + 1), accuracy=0.5 + i / 100) for i in range(30)],
        ODD: [],
        "run 0": [dr.Validated(step=10, epoch=0, loss=0.5, accuracy=None)],
    }
    plots.draw_curves(runs(4), path, validations=validations, form=form, about=TITLE)


def curves_with_metrics(num_metrics: int) -> Draw:
    names = ["f1_macro", "roc_auc", "top_3", "calibration_error"][:num_metrics]

    def validated(number: int) -> dr.Validated:
        metrics = {name: 1 - 1 / (number + 1 + at) for at, name in enumerate(names)}
        return dr.Validated(step=100 * number, epoch=number, loss=1.0, accuracy=0.5, metrics=metrics)

    validations = {"run 0": [validated(number) for number in range(30)], LONG: [validated(0)]}
    return lambda path, form: plots.draw_curves(runs(4), path, validations=validations, form=form, about=TITLE)


def over_time(what: str, watched: list[WatchedStep]) -> Draw:
    def draw(path: Path, form: Form) -> None:
        match what:
            case "gradients":
                plots.draw_gradients_over_time(watched, path, form=form)
            case "activations":
                plots.draw_activations_over_time(watched, epochs(watched), path, form=form, about=TITLE)
            case "no epochs":
                plots.draw_activations_over_time(watched, [], path, form=form)
            case "preactivations":
                plots.draw_preactivations(watched, path, form=form)

    return draw


def forecast(name: str) -> plots.ForecastCurve:
    """Over 4,096 nodes."""
    nodes = [2**power for power in range(13)]
    speeds = [(number**0.8, number**0.75, number**0.85) for number in nodes]
    shares = [(number**-0.2, number**-0.25, number**-0.15) for number in nodes]
    parts = {"shards": [1 / number for number in nodes], "exchange, not hidden": [0.1] * len(nodes)}
    enough = [None, *(64 * number for number in nodes[1:])]
    limits = ["nothing"] * 3 + ["latency"] * 6 + ["bandwidth"] * 4
    memory, costs = [8_000_000 // number for number in nodes], [0.1 * number**0.2 for number in nodes]
    simulated = [speed for speed, _, _ in speeds]
    return plots.ForecastCurve(name, nodes, speeds, shares, parts, limits, enough, memory, costs, simulated)


def by_layer(num_layers: int, low: float) -> Draw:
    flows = {name: flow(num_layers, low) for name in ("relu", "tanh", LONG)}
    return lambda path, form: plots.draw_gradients(flows, path, form=form)


PICTURES: dict[str, Draw] = {
    **{f"curves of {num_runs}": curves(num_runs) for num_runs in (1, 2, 6, 12)},
    "curves with validations": curves_with_validations,
    "curves with two metrics": curves_with_metrics(2),
    "curves, a step": lambda path, form: plots.draw_curves({"run": FEW[:1]}, path, form=form),
    "curves, no classes": lambda path, form: plots.draw_curves(
        {LONG: [replace(step, accuracy=None) for step in MANY], "b": FEW}, path, form=form
    ),
    **{
        f"{what}, {name}": over_time(what, watched)
        for what in ("gradients", "activations", "no epochs", "preactivations")
        for name, watched in (("few", FEW), ("many", MANY), ("long names", UNNAMED))
    },
    **{f"gradients by layer, {n} to {low}": by_layer(n, low) for n, low in ((1, 0.8), (3, 0.05), (13, 1e-9))},
    "activations by layer": lambda path, form: plots.draw_activations(activations(3, OWN), path, form=form),
    "activations by many": lambda path, form: plots.draw_activations(activations(40, "ReLU"), path, form=form),
    "training": lambda path, form: plots.draw_training(
        {name: [course(90), course(80)] for name in (ODD, "relu", LONG)}, path, form=form, about=TITLE
    ),
    "recurrence": lambda path, form: plots.draw_recurrence(
        {
            name: analysis.TimeFlow(name="0 RNN", norms=np.geomspace(0.6, 0.8, 50).tolist())
            for name in ("identity", LONG)
        },
        path,
        form=form,
    ),
    **{
        f"learning rate, {name}": lambda path, form, losses=losses: plots.draw_learning_rate(  # type: ignore[misc]
            rates(losses), path, form=form, about=TITLE
        )
        for name, losses in (("one", [2.0]), ("flat", [1.0] * 5), ("risen", [*np.linspace(2, 1, 90), 1e9]))
    },
    **{
        f"phases of {num_workers}": lambda path, form, num_workers=num_workers: plots.draw_phases(  # type: ignore[misc]
            phases(num_workers), path, form=form
        )
        for num_workers in (1, 64)
    },
    **{
        f"scaling, {num_curves} curves": lambda path, form, num_curves=num_curves: plots.draw_scaling(  # type: ignore[misc]
            scaling(num_curves), path, form=form, about=TITLE
        )
        for num_curves in (1, 9)
    },
    "forecast": lambda path, form: plots.draw_forecast(
        [forecast(name) for name in ("mlp:1024,1024, batch 4096", LONG)], path, form=form, about=TITLE
    ),
    "what nodes cost": lambda path, form: plots.draw_node_costs(
        [forecast(name) for name in ("mlp:1024,1024, batch 4096", LONG)], path, form=form, about=TITLE
    ),
    "what if": lambda path, form: plots.draw_what_if(
        [
            plots.Change(name, [94.0, 95.5, np.nan], [0.21, 0.2, 0.3], 10.0)
            for name in ("no change", "--compress bf16", TITLE)
        ],
        path,
        score="accuracy, %",
        form=form,
        about=TITLE,
    ),
    "sums": lambda path, form: plots.draw_sums(
        [
            plots.SumCurves(where, [4_000, 4_000_000], {"dist_relu": [0.01, 0.3], who: [0.02, 3.0]}, [1e-3, 0.1])
            for where, who in (("2 workers of one node, mpi", "MPI_Allreduce"), ("3 workers of 3 nodes, ray", LONG))
        ],
        path,
        form=form,
        about=TITLE,
    ),
    "boundary": lambda path, form: plots.draw_boundary(plane(7), path, form=form, about=TITLE),
    "relu": lambda path, form: plots.draw_relu(fit(), path, form=form),
    "family": lambda path, form: plots.draw_family(path, form=form),
    "weights": lambda path, form: plots.draw_weights(WEIGHTS, path, form=form, about=TITLE),
}
TYPICAL = ("curves of 6", "activations, many", "phases of 1", "scaling, 9 curves", "forecast", "boundary", "weights")


WIDE = ("family", "recurrence", "weights")
"""What has no room in a column."""


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """What is being drawn: laid out, and written nowhere."""
    seen: list[Figure] = []

    def savefig(figure: Figure, *arguments: Any, **options: Any) -> None:
        engine = figure.get_layout_engine()
        assert engine is not None
        engine.execute(figure)
        seen.append(figure)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return seen


@pytest.mark.parametrize(
    ("name", "form"),
    [
        *((name, FORMED) for name in TYPICAL),
        *long(*((name, FORMED) for name in PICTURES if name not in TYPICAL)),
        *long(*((name, Form()) for name in PICTURES)),
        *long(*((name, COLUMN) for name in PICTURES if name not in WIDE)),
    ],
)
def test_words_stay_inside_and_legends_cover_nothing(
    tmp_path: Path, figures: list[Figure], name: str, form: Form
) -> None:
    PICTURES[name](tmp_path / "a.png", form)
    (figure,) = figures
    needed, tolerance = figure.get_tightbbox(), 0.02
    assert needed.x0 > -tolerance
    assert needed.y0 > -tolerance
    assert needed.x1 < figure.get_figwidth() + tolerance
    assert needed.y1 < figure.get_figheight() + tolerance
    panels = [box for axes in figure.axes if axes.axison and (box := axes.get_tightbbox())]
    assert not any(axes.get_legend() for axes in figure.axes if axes.axison)
    for legend in figure.legends:
        assert not any(legend.get_window_extent().padded(-1).overlaps(box) for box in panels)
    titles = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
    assert not any(a.overlaps(b) for i, a in enumerate(titles) for b in titles[:i])
    assert all(axes.get_window_extent().height > 0.8 * figure.dpi for axes in figure.axes if axes.axison)


def test_of_what_was_left_out_a_picture_tells(tmp_path: Path, figures: list[Figure]) -> None:
    plots.draw_gradients_over_time(MANY, tmp_path / "a.png")
    plots.draw_activations_over_time(MANY, [], tmp_path / "a.png")
    plots.draw_preactivations(MANY, tmp_path / "a.png")
    plots.draw_gradients_over_time(FEW, tmp_path / "a.png")
    words = [" ".join(text.get_text() for text in figure.findobj(Text)).replace("\n", " ") for figure in figures]
    for seen, told in zip(words, ("7 of 14 weights", "7 of 13 hidden layers", "6 of 13 layers"), strict=False):
        assert f"Shown: {told}" in seen
        assert "One of 10 steps was watched." in seen
    assert "means of up to 5 around it" in words[0]
    assert "Shown:" not in words[3]


@pytest.mark.parametrize("low", [0.7, 0.2])
def test_short_ranges_have_plain_numbers(tmp_path: Path, figures: list[Figure], low: float) -> None:
    plots.draw_curves({"run": steps(20, 1, low=low)}, tmp_path / "a.png")
    (figure,) = figures
    axis = figure.axes[0].yaxis
    seen = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= 1]
    assert len(seen) >= 2
    assert [float(tick.label1.get_text()) for tick in seen] == pytest.approx([tick.get_loc() for tick in seen])


def test_what_is_the_same_for_all_changes_has_its_number(tmp_path: Path, figures: list[Figure]) -> None:
    changes = [plots.Change(name, [90.0], [0.2], 12.5) for name in ("no change", "--scale-lr linear")]
    plots.draw_what_if(changes, tmp_path / "a.png", score="accuracy, %")
    assert [tick.get_text() for tick in figures[0].axes[2].get_xticklabels()] == ["12.5"]


@pytest.mark.parametrize("form", [PLAIN, COLUMN])
@pytest.mark.parametrize("least", [0.0293, 0.0554, 0.111])
def test_numbers_of_what_is_sent_do_not_touch(tmp_path: Path, figures: list[Figure], form: Form, least: float) -> None:
    changes = [plots.Change(str(sent), [90.0], [0.2], sent) for sent in (0.222, least)]
    plots.draw_what_if(changes, tmp_path / "a.png", score="accuracy, %", form=form)
    (figure,) = figures
    axis = figure.axes[2].xaxis
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()) if low <= tick.get_loc() <= high]
    boxes = sorted(
        (tick.label1.get_window_extent() for tick in ticks if tick.label1.get_text()), key=lambda box: float(box.x0)
    )
    assert len(boxes) >= 2
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_a_forecast_for_a_column_fits_on_a_page(tmp_path: Path, figures: list[Figure]) -> None:
    plots.draw_forecast([forecast("mlp:1024,1024, batch 4096")], tmp_path / "a.png", form=COLUMN, about="10G")
    (figure,) = figures
    assert figure.get_figheight() < 9.7
    note = figure.legends[0].get_title().get_text()
    assert "Limited by latency from 8 nodes, bandwidth from 512 nodes." in note.replace("\n", " ")
    for axes in figure.axes:
        boxes = [tick.label1.get_window_extent() for tick in axes.xaxis.get_major_ticks()]
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_parts_of_a_step_have_no_colours_of_series(tmp_path: Path, figures: list[Figure]) -> None:
    plots.draw_forecast([forecast("a"), forecast("b")], tmp_path / "a.png")
    (legend,) = figures[0].legends
    handles: Any = legend.legend_handles
    series = {to_hex(each.get_color()) for each in handles if not isinstance(each, Patch)}
    parts = {to_hex(each.get_facecolor()) for each in handles if isinstance(each, Patch)}
    assert len(series) == 3  # of two, and of the ideal
    assert len(parts) == 2
    assert not series & parts


def test_intervals_at_the_same_number_of_workers_stand_beside_one_another(
    tmp_path: Path, figures: list[Figure]
) -> None:
    plots.draw_scaling(scaling(3), tmp_path / "a.png")
    (figure,) = figures
    curves: Any = figure.axes[0].containers
    firsts = [bars.lines[0].get_xdata()[0] for bars in curves]
    assert len(set(firsts)) == 3
    assert max(firsts) < 2**0.5


def test_a_smooth_line_begins_where_its_values_do() -> None:
    values = np.geomspace(100, 1e-3, 400)
    smoothed = smooth(values.tolist())
    assert smoothed[0] == values[0]
    assert smoothed[200] == pytest.approx(values[190:211].mean(), rel=1e-12)
    assert smoothed[-1] == pytest.approx(values[-11:].mean(), rel=1e-12)
    values[100] = np.nan
    smoothed = smooth(values.tolist())
    assert np.flatnonzero(np.isnan(smoothed)).tolist() == [100]
    assert smooth([3.0, np.inf]).tolist() == [3.0, np.inf]
    assert smooth([]).tolist() == []


def test_a_bell_has_one_top_at_0(rng: np.random.Generator) -> None:
    counts = np.histogram(rng.standard_normal(100_000), dr.PREACTIVATION_EDGES)[0].tolist()
    limits, densities = densities_of([counts, counts])
    assert densities.shape == (len(limits) - 1, 2)
    middle = len(limits) // 2
    assert limits[middle] == 0
    assert limits[0] == -limits[-1] == -3
    tops = np.flatnonzero(densities[:, 0] > 0.95 * densities.max())
    assert np.abs(limits[tops]).max() < 0.5
    centres = (limits[1:] + limits[:-1]) / 2
    np.testing.assert_allclose(densities[:, 0], np.exp(-(centres**2) / 2) / np.sqrt(2 * np.pi), atol=0.05)


@pytest.mark.parametrize("counts", [[0] * 60, [0, 1, *[0] * 58], [*[0] * 59, 5]], ids=["none", "low", "infinite"])
def test_any_distribution_can_be_drawn(tmp_path: Path, counts: list[int]) -> None:
    assert len(counts) == len(dr.PREACTIVATION_EDGES) - 1
    layers = [replace(layer, preactivations=counts) for layer in FEW[0].layers]
    plots.draw_preactivations([replace(FEW[0], layers=layers)], tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".svg", *long(".png", ".pdf")])
def test_the_same_picture_is_the_same_file_in_any_form(tmp_path: Path, suffix: str) -> None:
    contents = set()
    for name in ("a", "b"):
        path = tmp_path / (name + suffix)
        plots.draw_activations_over_time(MANY, epochs(MANY), path, form=Form(title="dead units", width=6, dpi=80))
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_a_picture_is_as_wide_as_it_is_told_to_be(tmp_path: Path, figures: list[Figure]) -> None:
    plots.draw_curves({"run": MANY}, tmp_path / "a.png", form=Form(title="", width=6.5, dpi=100), about="of digits")
    assert figures[0].get_figwidth() == 6.5
    assert figures[0].dpi == 100
    assert figures[0].get_suptitle() == ""
