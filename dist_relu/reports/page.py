"""What stands on the page of a run."""

from __future__ import annotations

import shlex
from pathlib import Path
from sys import float_info
from typing import Any

from dist_relu.data.labels import listed
from dist_relu.engine.watch.records import EpochSummary
from dist_relu.errors import CheckpointError
from dist_relu.metrics.named import is_number
from dist_relu.reports.figures import figures, weights_figure
from dist_relu.reports.logs import Logs
from dist_relu.reports.plots.activity import hidden_layers
from dist_relu.run.info import RunInfo

_NOT_PART_OF_THE_RUN = {
    *("log-dir", "json", "save", "quiet", "workers", "backend", "address", "spread", "shards", "checkpoint", "every"),
    *("keep", "resume", "max-time", "metrics", "on-failure", "max-restarts", "worker-timeout"),
}
_NOTHING = "–"


_UNKNOWN = RunInfo({}, "", "", "", 0, 0, "", 0, 0, 0, "", "", "", {})
"""Stands for a run of which nothing is known, and is not shown."""


def page(logs: Logs, folder: Path) -> str:
    """A log folder as an HTML page that needs nothing else.  Raises ImportError without jinja2 or matplotlib."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    run = logs.run or _UNKNOWN
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = figures(logs, folder.name)
    notes = [f"Left out, since it is damaged: {each}." for each in logs.left_out]
    hidden = {layer.name for _, layer in hidden_layers(logs.steps)} if logs.steps else set()
    if (folder / "model.safetensors").is_file():
        try:
            weights = weights_figure(folder / "model.safetensors", str(run.options.get("data", "")))
            shown += [weights] if weights else []
        except CheckpointError as error:
            notes.append(f"The weights of the first layer can't be shown: {error}")
    return environment.get_template("page.html").render(
        title=f"{run.options.get('model', 'model')} on {run.options.get('data', 'data')}",
        run=run,
        is_known=logs.run is not None,
        results=_results(run),
        figures=shown,
        notes=notes,
        epochs=[_cells(epoch, hidden) for epoch in logs.epochs],
        command=_command(run),
        options=[(name, value) for name, value in run.options.items() if _is_given(value)],
        machine=_machine(run),
    )


def _results(run: RunInfo) -> list[tuple[str, str]]:
    """What they are called, and what they are; nothing for a run that is not over."""
    if not (results := run.results):
        return []
    rows = [
        ("Accuracy on unseen samples", _share(results.get("test_accuracy"))),
        ("Loss on unseen samples", _number(results.get("test_loss"))),
        *_measured(results.get("test_metrics")),
        ("Loss in the last epoch", _number(results.get("train_loss"))),
        ("Training", _filled("{:,} steps in {:.1f} s", results, "steps", "seconds")),
        ("Speed", _filled("{:,.0f} samples/s, {:.2f} ms a step", results, "samples_per_second", "step_ms_median")),
        ("Classes", _classes(results.get("classes"))),
        ("Workers lost", _recoveries(results.get("recoveries"))),
        ("SHA-256 of the parameters", str(results.get("params_sha256") or _NOTHING)),
    ]
    return [row for row in rows if row[1] != _NOTHING]


def _cells(epoch: EpochSummary, hidden: set[str]) -> list[str]:
    """hidden: the layers of which units count that are dead."""
    dead = _NOTHING if epoch.dead is None else str(sum(len(epoch.dead[layer]) for layer in hidden))
    return [str(epoch.epoch + 1), _number(epoch.loss), _share(epoch.accuracy), f"{epoch.seconds:.2f}", dead]


def _command(run: RunInfo) -> list[str]:
    """What gives the same bits again, on any number of workers; an option a string."""
    words = ["dist-relu train"]
    for name, value in run.options.items():
        if name not in _NOT_PART_OF_THE_RUN and _is_given(value):
            words.append(f"--{name}" if value is True else f"--{name} {shlex.quote(str(value))}")
    return [*words, f"--shards {run.shards}"]


def _is_given(value: object) -> bool:
    return value is not None and value is not False


def _machine(run: RunInfo) -> list[tuple[str, str]]:
    where = f"{run.workers} × {run.backend}" + (f" on {run.nodes} machines" if run.nodes > 1 else "")
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    return [
        ("Started", run.started),
        ("Workers", where),
        ("Processor", run.cpu),
        ("BLAS", run.blas),
        ("With", versions),
    ]


def _filled(form: str, results: dict[str, Any], *names: str) -> str:
    """Results in words, where all of them are numbers."""
    values = [results.get(name) for name in names]
    return form.format(*values) if all(map(_is_number, values)) else _NOTHING


def _measured(metrics: Any) -> list[tuple[str, str]]:
    """What was measured of unseen samples besides, by name."""
    if not isinstance(metrics, dict):
        return []
    return [(f"{name} on unseen samples", _number(value)) for name, value in metrics.items() if is_number(name)]


def _classes(names: Any) -> str:
    return listed(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else _NOTHING


def _recoveries(records: Any) -> str:
    """How many workers were lost, and how long it took to go on, where that is known."""
    if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
        return _NOTHING
    seconds = [record.get("seconds") for record in records]
    longest = f", at most {max(seconds):.1f} s to go on" if all(map(_is_number, seconds)) else ""
    last = records[-1].get("loss")
    return (
        f"{len(records)} times{longest}; the last: {last}"
        if isinstance(last, str)
        else f"{len(records)} times{longest}"
    )


def _number(value: Any) -> str:
    return f"{value:.5g}" if _is_number(value) else _NOTHING


def _share(value: Any) -> str:
    return f"{value:.2%}" if _is_number(value) else _NOTHING


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= float_info.max
