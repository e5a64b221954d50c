"""States of runs as files: safetensors with a JSON header.  Nothing that is loaded is ever executed.

The header has what the header of a model has, so that `load_model` reads the model in it, and under "run" what else
there is: where the run stands, and what fixes its bits. Parameters have their names, the same elements of other vectors
"optimizer state 0/0.weight", "average/0.weight"; histories are "steps/loss" and so on, arrays of callbacks
"callbacks/0". The header has a digest of itself, and checksums of the parameters and of all other tensors.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite, isnan, nan
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from dist_relu.checkpoint import RUN_FORMAT, digest_of_header
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_is
from dist_relu.core.files import strict
from dist_relu.core.tensor_file import (
    TYPES,
    Block,
    HeaderTooLarge,
    checksum,
    read_blocks,
    read_header,
    type_name,
    write_tensors,
)
from dist_relu.core.untrusted import made, parse_json, reading
from dist_relu.engine.memory import STEP_RECORD
from dist_relu.errors import CheckpointError
from dist_relu.run.state import RunState

_DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}
_VALIDATION = np.dtype([("step", np.int64), ("epoch", np.int64), ("loss", np.float64), ("accuracy", np.float64)])
"""What `Validated` holds; an accuracy that there is none of is NaN."""
_ARRAY = "$array"
"""The key of what stands for an array in what callbacks remember."""
_DEEPEST = 10
"""How deep that may be nested."""


@dataclass(frozen=True, kw_only=True)
class _ArrayKind:
    """An array has this type, as safetensors calls it, and this shape."""

    dtype: str
    shape: list[int]


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What the header says under "run"; see `RunState`.  params: names and shapes.  arrays: those of callbacks.

    validation_metrics: of each validation; none where no validation measured any.
    """

    step: int
    steps_per_epoch: int
    lr_scale: float
    num_validations: int
    vector_names: list[str]
    params: dict[str, list[int]]
    arrays: list[_ArrayKind]
    settings: dict[str, Any]
    versions: dict[str, str]
    callbacks: dict[str, Any]
    validation_metrics: list[dict[str, float]] = field(default_factory=list)


def save_state(state: RunState, path: str | Path) -> None:
    """Write what `Trainer.state` gives, for `load_state`; the same state gives the same bytes.

    Raises `WriteError`, and then the file of that name is as it was before; ValueError where callbacks remember what no
    file can hold, which is named.
    """
    check_is("state", state, RunState)
    arrays: list[Array] = []
    callbacks = {key: _without_arrays(f"callbacks[{key!r}]", value, arrays) for key, value in state.callbacks.items()}
    settings = dict(state.settings)
    model = settings.pop("model")
    run = _Run(
        step=state.step,
        steps_per_epoch=state.steps_per_epoch,
        lr_scale=state.lr_scale,
        num_validations=len(state.validations),
        vector_names=list(state.vector_names),
        params={name: list(shape) for name, shape in zip(state.names, state.shapes, strict=True)},
        arrays=[_ArrayKind(dtype=type_name(array.dtype) or "", shape=list(array.shape)) for array in arrays],
        settings=settings,
        versions=dict(state.versions),
        callbacks=callbacks,
    )
    as_data = asdict(run)
    if any(one.get("metrics") for one in state.validations):
        as_data["validation_metrics"] = strict([one.get("metrics", {}) for one in state.validations])
    else:
        del as_data["validation_metrics"]
    contents = [state.vectors, *_columns(state.records), *_columns(_validation_records(state)), *arrays]
    header = {
        "format": RUN_FORMAT,
        "dtype": model["dtype"],
        "input_shape": json.dumps(model["input_shape"]),
        "layers": json.dumps(model["layers"]),
        "predicts": settings["data"]["predicts"],
        **({"classes": json.dumps(settings["data"]["classes"])} if "classes" in settings["data"] else {}),
        **({"loss": json.dumps(model["loss"])} if "loss" in model else {}),
        **_checksums(contents),
        "run": json.dumps(as_data),
    }
    header["header_sha256"] = digest_of_header(header)
    try:
        write_tensors(path, header, _blocks(run, state.vectors.dtype), contents)
    except HeaderTooLarge as error:
        raise ValueError(f"The state can't be saved: the model and what callbacks remember take {error}.") from None


def load_state(path: str | Path) -> RunState:
    """The state in a file that `save_state` wrote, for `Coordinator.trainer(state=...)`.

    Raises `CheckpointError`, which names the file and the reason, for a file that is none, is not whole, or is of a
    newer version. Memory is taken only for what is in the file.
    """
    os.fspath(path)  # raises TypeError for what is no path
    with reading(path, CheckpointError, "a checkpoint"), open(path, "rb") as file:
        header, table = read_header(file)
        _check_header(path, header)
        run = made(_Run, parse_json(header["run"]))
        _check_run(header, run, len(table))
        contents = read_blocks(file, table, _blocks(run, _DTYPES[header["dtype"]]))
        contents[0] = contents[0].reshape(len(run.vector_names), -1)
        if any(header[name] != value for name, value in _checksums(contents).items()):
            raise CheckpointError(f"{path} is damaged: the checksum of its tensors is not the one in its header.")
        return _state(header, run, contents)


def _check_header(path: str | Path, header: Mapping[str, str]) -> None:
    there = header.get("format", "")
    number = re.fullmatch(r"dist_relu run (\d{1,9})", there)
    if not number:
        what = "a model, which load_model reads" if there.startswith("dist_relu ") else "none of ours"
        raise CheckpointError(f"{path} is no checkpoint: it is {what}.")
    if there != RUN_FORMAT:
        raise CheckpointError(
            f"{path} was written by a newer version of dist_relu, in format {number[1]}; this version reads "
            f"{RUN_FORMAT.rpartition(' ')[2]}."
        )
    if header.get("header_sha256") != digest_of_header({k: v for k, v in header.items() if k != "header_sha256"}):
        raise CheckpointError(f"{path} is damaged: the digest of its header is not the one that it holds.")


def _check_run(header: Mapping[str, str], run: _Run, num_tensors: int) -> None:
    """Raise ValueError for numbers and settings that no run has, or that `num_tensors` do not go with."""
    sizes = [size for shape in (*run.params.values(), *(kind.shape for kind in run.arrays)) for size in shape]
    if min([run.step, run.num_validations, run.steps_per_epoch - 1, *sizes]) < 0:
        raise ValueError("a number in it is negative")
    if len(run.validation_metrics) not in (0, run.num_validations):
        raise ValueError(f"it has metrics of {len(run.validation_metrics)} of {run.num_validations} validations")
    if not isfinite(run.lr_scale) or run.lr_scale <= 0:
        raise ValueError(f"its learning rate is scaled by {run.lr_scale}")
    needed = len(run.params) * len(run.vector_names) + len(_names(STEP_RECORD) + _names(_VALIDATION)) + len(run.arrays)
    if not run.vector_names or num_tensors != needed:
        raise ValueError(f"it has {num_tensors:,} tensors in place of {needed:,}")
    if {type(run.settings.get("seed")), type(run.settings.get("shards"))} != {int}:
        raise ValueError("its settings have no seed or no shards")
    data = run.settings.get("data")
    classes = parse_json(header["classes"]) if "classes" in header else None
    if not isinstance(data, dict) or (data.get("predicts", ""), data.get("classes")) != (
        header.get("predicts"),
        classes,
    ):
        raise ValueError("its settings tell of other data than its header")


def _state(header: Mapping[str, str], run: _Run, contents: Sequence[Array]) -> RunState:
    vectors, *rest = contents
    num_columns = len(_names(STEP_RECORD))
    records = _records(STEP_RECORD, rest[:num_columns])
    validations = _records(_VALIDATION, rest[num_columns : num_columns + len(_names(_VALIDATION))])
    arrays = rest[num_columns + len(_names(_VALIDATION)) :]
    shaped = [array.reshape(kind.shape) for array, kind in zip(arrays, run.arrays, strict=True)]
    model = {
        "layers": parse_json(header["layers"]),
        "input_shape": made(list[int], parse_json(header["input_shape"])),
        "dtype": header["dtype"],
        **({"loss": parse_json(header["loss"])} if "loss" in header else {}),
    }
    return RunState(
        step=run.step,
        steps_per_epoch=run.steps_per_epoch,
        vectors=vectors,
        vector_names=run.vector_names,
        names=list(run.params),
        shapes=[tuple(shape) for shape in run.params.values()],
        records=records,
        settings={"model": model, **run.settings},
        versions=run.versions,
        lr_scale=run.lr_scale,
        validations=[
            {
                name: None if isnan(value) and name == "accuracy" else value
                for name, value in zip(_names(_VALIDATION), row, strict=True)
            }
            | {"metrics": metrics}
            for row, metrics in zip(
                validations.tolist(), run.validation_metrics or [{}] * run.num_validations, strict=True
            )
        ],
        callbacks={key: _with_arrays(value, shaped) for key, value in run.callbacks.items()},
    )


def _blocks(run: _Run, dtype: np.dtype[Any]) -> list[Block]:
    """What is in the file behind its header: all vectors, histories, arrays of callbacks."""
    prefixes = ["", *(f"{name}/" for name in run.vector_names[1:])]
    vectors = [(prefix + name, tuple(shape)) for prefix in prefixes for name, shape in run.params.items()]
    blocks = [Block(dtype, vectors)]
    for kind, prefix, length in ((STEP_RECORD, "steps", run.step), (_VALIDATION, "validations", run.num_validations)):
        blocks += [Block(kind[name], [(f"{prefix}/{name}", (length,))]) for name in _names(kind)]
    for number, array in enumerate(run.arrays):
        blocks.append(Block(np.dtype(TYPES[array.dtype]), [(f"callbacks/{number}", tuple(array.shape))]))
    return blocks


def _checksums(contents: Sequence[Array]) -> dict[str, str]:
    """Of the parameters and of all else; the first of `contents` are the vectors (V, P)."""
    vectors, *others = contents
    return {"params_crc32": checksum([vectors[0]]), "others_crc32": checksum([vectors[1:], *others])}


def _names(kind: np.dtype[Any]) -> tuple[str, ...]:
    assert kind.names
    return kind.names


def _columns(records: Array) -> list[Array]:
    return [records[name] for name in _names(records.dtype)]


def _records(kind: np.dtype[Any], columns: Sequence[Array]) -> Array:
    """The inverse of `_columns`."""
    records = np.empty(len(columns[0]), kind)
    for name, column in zip(_names(kind), columns, strict=True):
        records[name] = column
    return records


def _validation_records(state: RunState) -> Array:
    rows = [tuple(nan if one[name] is None else one[name] for name in _names(_VALIDATION)) for one in state.validations]
    return np.array(rows, _VALIDATION)


def _without_arrays(place: str, value: Any, arrays: list[Array], depth: int = 0) -> Any:
    """What a callback remembers as JSON; its arrays are put into a list, of which their places have the numbers."""
    if depth > _DEEPEST:
        raise ValueError(f"The state can't be saved: {place} is nested deeper than {_DEEPEST} levels.")
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray) and type_name(value.dtype):
        arrays.append(value)
        return {_ARRAY: len(arrays) - 1}
    if isinstance(value, list | tuple):
        return [_without_arrays(f"{place}[{i}]", item, arrays, depth + 1) for i, item in enumerate(value)]
    if isinstance(value, Mapping) and _ARRAY not in value and all(type(key) is str for key in value):
        return {key: _without_arrays(f"{place}[{key!r}]", item, arrays, depth + 1) for key, item in value.items()}
    if not isinstance(value, bool | int | float | str | NoneType):
        raise ValueError(
            f"The state can't be saved: {place} is {type(value).__name__}; expected numbers, texts, arrays of such "
            "numbers, or lists and dicts of these with text for keys."
        )
    return value


def _with_arrays(value: Any, arrays: Sequence[Array]) -> Any:
    """The inverse of `_without_arrays`."""
    if isinstance(value, list):
        return [_with_arrays(item, arrays) for item in value]
    if isinstance(value, dict):
        if _ARRAY in value:
            return arrays[made(int, value[_ARRAY])]
        return {key: _with_arrays(item, arrays) for key, item in value.items()}
    return value
