"""The log folder of a run: what was run, what was seen of it, and what came out.

    run.json            what was run, and when it is over its results
    steps.jsonl         a `WatchedStep` a line, written while the run goes on
    epochs.jsonl        an `EpochSummary` a line, written when the epoch is over
    validations.jsonl   a `Validated` a line, of a run that validates
    model.safetensors   the trained model
    state.safetensors   where the run ended, with the losses of all steps: what `dist-relu reproduce` compares with
    events.out.*        the same for TensorBoard, where that is installed

All JSON is strict: NaN and infinities are null. Where a number must stand they come back as NaN, elsewhere as None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from dist_relu.core.untrusted import made, parse_json, printable, read_file
from dist_relu.engine.results import Validated
from dist_relu.engine.watch.records import PREACTIVATION_EDGES, EpochSummary, WatchedLayer, WatchedStep
from dist_relu.run.info import RUN_FILE, RunInfo, read_run_info

T = TypeVar("T")

STEPS_FILE, EPOCHS_FILE = "steps.jsonl", "epochs.jsonl"
VALIDATIONS_FILE, MODEL_FILE = "validations.jsonl", "model.safetensors"
_MOST_BYTES = 2**30
_LONGEST_NAME = 200


def in_words(options: Mapping[str, Any]) -> list[str]:
    """What was run, in as few words as a title has room for.

    options: as in `RunInfo`, or in a file of `dist-relu analyze`; what is not there is not told.
    """
    model, data, rate, samples = (options.get(name) for name in ("model", "data", "lr", "samples"))
    batch = options.get("batch-size", options.get("batch_size"))
    parts = (
        f"{model} on {data}" if model and data else f"{model or data or ''}",
        f"{options.get('optimizer') or ''}",
        f"lr {rate:g}" if isinstance(rate, int | float) else "",
        f"batches of {batch}" if batch else "",
        f"{samples:,} samples" if isinstance(samples, int) else "",
        f"seed {options['seed']}" if "seed" in options else "",
    )
    return [part for part in parts if part]


@dataclass(frozen=True)
class Logs:
    """A log folder, read.

    run: None if the folder has no run.json, or a damaged one.  left_out: what is damaged, each with its file.
    """

    run: RunInfo | None
    steps: list[WatchedStep]
    epochs: list[EpochSummary]
    left_out: list[str] = field(default_factory=list)
    validations: list[Validated] = field(default_factory=list)


def read_logs(folder: str | Path) -> Logs:
    """What is in a log folder, of a run that is over or still goes on; what is damaged of it is left out.

    Raises ValueError for a folder that `LogWriter` did not write, or in which nothing is whole.
    """
    folder = Path(folder)
    if not (folder / STEPS_FILE).is_file():
        raise ValueError(f"{folder} has no {STEPS_FILE}; expected a folder that dist-relu train --log-dir wrote.")
    left_out: list[str] = []
    run = _run(folder / RUN_FILE, left_out)
    steps, epochs = _of_one_run(
        _lines(folder / STEPS_FILE, _step, left_out), _lines(folder / EPOCHS_FILE, _epoch, left_out), left_out
    )
    there = (folder / VALIDATIONS_FILE).exists()
    validations = _lines(folder / VALIDATIONS_FILE, _validated, left_out) if there else []
    if left_out and not (run or steps or epochs or validations):
        name, _, why = left_out[0].partition(": ")
        raise ValueError(
            f"{folder / name} is no log of a run; expected what dist-relu train --log-dir writes. {why.capitalize()}."
        )
    return Logs(run, steps, epochs, left_out, validations)


def _reason(error: Exception) -> str:
    return (
        "it is nested too deep" if isinstance(error, RecursionError) else printable(str(error) or type(error).__name__)
    )


def _lines(path: Path, parse: Callable[[Any], T], left_out: list[str]) -> list[T]:
    """What the lines of a file stand for; tells of those that are left out, since they are damaged.

    A last line without an end is still being written, or never will be.
    """
    whole: list[T] = []
    damaged: list[str] = []
    try:
        *lines, _ = read_file(path, _MOST_BYTES).split(b"\n")
    except (OSError, ValueError) as error:
        left_out.append(f"{path.name}: {_reason(error)}")
        return []
    for number, line in enumerate(lines, 1):
        try:
            whole.append(parse(parse_json(line)))
        except (ValueError, RecursionError) as error:
            damaged.append(f"line {number}: {_reason(error)}")
    if damaged:
        count = f"{len(damaged)} of {len(lines)} lines, of which the first is " if len(damaged) > 1 else ""
        left_out.append(f"{path.name}: {count}{damaged[0]}")
    return whole


def _run(path: Path, left_out: list[str]) -> RunInfo | None:
    try:
        return read_run_info(path.parent)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        left_out.append(f"{path.name}: {_reason(error)}")
        return None


def _step(content: Any) -> WatchedStep:
    step = made(WatchedStep, content)
    _check_numbers(step, ("step", "epoch", "lr", "samples_per_second"), ("accuracy",))
    for param in step.params:
        _check_numbers(param, ("gradient_norm", "update_ratio"))
    for layer in step.layers:
        _check_numbers(layer, ("silent", "variance"), ("sparsity",))
        _check_layer(layer)
    return step


def _epoch(content: Any) -> EpochSummary:
    epoch = made(EpochSummary, content)
    _check_numbers(epoch, ("epoch", "seconds"), ("accuracy",))
    return epoch


def _validated(content: Any) -> Validated:
    validated = made(Validated, content)
    _check_numbers(validated, ("step", "epoch"), ("accuracy",))
    return validated


def _of_one_run(
    steps: list[WatchedStep], epochs: list[EpochSummary], left_out: list[str]
) -> tuple[list[WatchedStep], list[EpochSummary]]:
    """Those steps and epochs that have the layers and parameters that most steps have."""
    if not steps:
        return steps, epochs
    ((layers, params), _) = Counter(map(_names, steps)).most_common(1)[0]
    alike = [step for step in steps if _names(step) == (layers, params) and all(map(_is_name, (*layers, *params)))]
    fitting = [epoch for epoch in epochs if epoch.dead is None or epoch.dead.keys() == set(layers)]
    for name, given, kept in ((STEPS_FILE, steps, alike), (EPOCHS_FILE, epochs, fitting)):
        if len(kept) < len(given):
            left_out.append(f"{name}: {len(given) - len(kept)} of {len(given)} lines have other layers or parameters")
    return alike, fitting


def _names(step: WatchedStep) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(layer.name for layer in step.layers), tuple(param.name for param in step.params)


def _is_name(text: str) -> bool:
    return text.isprintable() and len(text) <= _LONGEST_NAME


def _check_layer(layer: WatchedLayer) -> None:
    counts = layer.preactivations
    if layer.num_units < 1:
        raise ValueError(f"{layer.name} has {layer.num_units} units")
    if counts is not None and (len(counts) != len(PREACTIVATION_EDGES) - 1 or min(counts) < 0):
        raise ValueError(f"{layer.name} has pre-activations in other bins than ours")


def _check_numbers(value: Any, not_negative: Sequence[str], shares: Sequence[str] = ()) -> None:
    """Raise ValueError for numbers out of bounds; NaN and None are in them."""
    for name in (*not_negative, *shares):
        number = getattr(value, name)
        if number is not None and (number < 0 or (name in shares and number > 1)):
            raise ValueError(f"{name} is {number}")
