"""The folder of an experiment: what was measured is in it at once, and all of it is of the same experiment."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dist_relu.core.files import append_to_file, make_folder, strict, write_json
from dist_relu.core.untrusted import made, parse_json
from dist_relu.data import Dataset
from dist_relu.nn import Sequential
from dist_relu.nn.description import describe
from dist_relu.optim import Optimizer
from dist_relu.run.settings import differences, digest_of_data

FACTS_FILE, MEASUREMENTS_FILE, PROFILES_FILE = "experiment.json", "measurements.jsonl", "profiles.jsonl"
OUTCOMES_FILE = "outcomes.jsonl"

T = TypeVar("T")

_LONGEST = 100
_POSITIVE = {"workers", "nodes", "batch_size", "shards", "rows", "at_once", "step_seconds", "messages"}
"""The names of numbers of measurements that are more than 0."""


def begin(
    folder: Path,
    models: Mapping[str, Sequential],
    data: Dataset,
    optimizer: Optimizer,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Begin an experiment in a folder, or go on with the one there, which may get more models and settings.

    settings: others that all of its measurements share.  facts: of the machine.

    Raises what `begin_with` does.
    """
    begin_with(
        folder,
        {
            "settings": {
                **settings,
                "optimizer": repr(optimizer),
                "data": {"sha256": digest_of_data(data), "samples": len(data), "sample_shape": data.sample_shape},
            },
            "models": {
                name: {"dtype": model.dtype.name, "layers": [describe(layer) for layer in model.layers]}
                for name, model in models.items()
            },
            "machine": facts,
        },
    )


def begin_with(folder: Path, parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Begin an experiment that is told by these parts, or go on with the one there, whose parts may get more names.

    Of the part "machine" only those facts are held against one another that the folder has.
    Raises ValueError where the one there is another one, or nothing tells which one it is; and `WriteError`.
    """
    make_folder(folder)
    before = _read_facts(folder)
    now = json.loads(json.dumps(strict(parts), default=repr))
    for part, values in now.items():
        there = {name: value for name, value in before.get(part, {}).items() if name in values}
        here = {name: value for name, value in values.items() if name in there}
        here = _known(here, there) if part == "machine" else here
        for name, value, other in differences(there, here):
            raise ValueError(
                f"{folder} holds another experiment: {name} was {_short(value)}, and is {_short(other)} now. Choose "
                "another folder, or remove this one."
            )
    merged = before | {part: before.get(part, {}) | values for part, values in now.items()}
    if merged != before:
        write_json(folder / FACTS_FILE, merged)


def _known(facts: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out facts that nobody has noted before."""
    return {
        name: _known(value, before[name]) if isinstance(value, Mapping) and isinstance(before[name], Mapping) else value
        for name, value in facts.items()
        if name in before
    }


def read_lines(path: Path, of_json: Callable[[Any], T], num_steps: Callable[[T], int | None]) -> Iterator[T]:
    """Read what was measured; lines that are no JSON, such as one that a crash has cut off, are left out.

    of_json: makes a measurement of what a line stands for.  num_steps: of a measurement, the same of all, or None.
    Raises ValueError, with the line, for what is not so.
    """
    if not path.exists():
        return
    of_first: int | None = None
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            continue
        try:
            found = of_json(content)
            steps = num_steps(found)
            of_first = of_first or steps
            if steps not in (of_first, None):
                raise ValueError(f"step_seconds has {steps} times, not {of_first} as before")
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number} is no measurement: {error}. Remove this line, and it is measured again."
            ) from None
        yield found


def measured(kind: type[T], content: Any, schema: int, derived: Collection[str] = ()) -> T:
    """Make a measurement, which is a dataclass, of what a line of JSON stands for.

    schema: the version that the line must have.  derived: what stands there beside the fields.
    Raises ValueError, which says what is not as it should be; null may stand nowhere.
    """
    if isinstance(content, dict):
        if content.get("schema") != schema:
            raise ValueError(f"its schema is not {schema}")
        content = {name: value for name, value in content.items() if name not in ("schema", *derived)}
    found = made(kind, content)
    if not content["step_seconds"]:
        raise ValueError("step_seconds is []")
    _check_numbers(content, "it", is_positive=False)
    return found


def _check_numbers(content: Any, name: str, *, is_positive: bool) -> None:
    """Raise ValueError for null, and for numbers that must be positive and are not."""
    if isinstance(content, dict):
        for key, item in content.items():
            _check_numbers(item, f"{name}.{key}".removeprefix("it."), is_positive=key in _POSITIVE)
    elif isinstance(content, list):
        for i, item in enumerate(content):
            _check_numbers(item, f"{name}[{i}]", is_positive=is_positive)
    elif content is None or (is_positive and content <= 0):
        raise ValueError(f"{name} is {content}")


def add_line(path: Path, line: str) -> None:
    """Add what was measured, in a line of its own, also behind one that was cut off.  Raises `WriteError`."""
    is_cut_off = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
    append_to_file(path, "\n" * is_cut_off + line + "\n")


def _read_facts(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / FACTS_FILE
    if not path.exists():
        if any((folder / name).exists() for name in (MEASUREMENTS_FILE, PROFILES_FILE, OUTCOMES_FILE)):
            raise ValueError(
                f"{folder} has measurements, but no {FACTS_FILE} that tells of what. Choose another folder."
            )
        return {}
    try:
        return made(dict[str, dict[str, Any]], parse_json(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} does not tell of an experiment: {error}. Choose another folder.") from None


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
