"""What fixes the bits of a run, as plain data that can be compared and written down."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from dist_relu.data import Dataset
from dist_relu.data.rows import Rows
from dist_relu.engine.arguments import predicts
from dist_relu.engine.plan import StepPlan
from dist_relu.nn import Sequential
from dist_relu.nn.description import describe

Settings = Mapping[str, Any]
"""By the names of `Coordinator.trainer`'s arguments, of numbers, texts, lists and dicts."""

_digests: weakref.WeakKeyDictionary[Dataset, str] = weakref.WeakKeyDictionary()


def settings_of(model: Sequential, data: Dataset, plan: StepPlan, *, shuffle: bool) -> dict[str, Any]:
    """Say what fixes the bits of a run beside the versions of programs; workers and backend do not.  model: built."""
    options = plan.options
    return {
        "model": {
            "layers": json.loads(json.dumps([describe(layer) for layer in model.layers], default=repr)),
            "input_shape": list(model.input_shape),
            "dtype": model.dtype.name,
            **({} if model.loss is None else {"loss": describe(model.loss)}),
        },
        "data": {
            "sha256": digest_of_data(data),
            "samples": len(data),
            "predicts": predicts(data, plan.loss),
            **({} if data.classes is None else {"classes": list(data.classes)}),
        },
        "loss": repr(plan.loss),
        "optimizer": repr(plan.optimizer),
        "batch_size": plan.batch_size,
        "shards": plan.shards,
        "seed": plan.seed,
        "shuffle": shuffle,
        "clip_norm": options.clip_norm,
        "clip_value": options.clip_value,
        "accumulate": options.accumulate,
        "ema_decay": options.ema_decay,
        "on_nan": options.on_nan,
        "augment": None if plan.augment is None else repr(plan.augment),
        **({"stale_gradients": True} if options.stale_gradients else {}),
        **({"averaging": repr(plan.averaging)} if plan.averaging else {}),
        **({} if plan.class_weight is None else {"class_weight": repr(plan.class_weight)}),
        **({} if plan.sampler is None else {"sampler": plan.sampler}),
        **({} if options.compression is None else {"compression": repr(options.compression)}),
    }


def digest_of_data(data: Dataset) -> str:
    """The SHA-256 of samples, targets and weights with their shapes and types; computed once for each data set."""
    if data not in _digests:
        digest = hashlib.sha256()
        for rows in (data.rows, *(Rows(array) for array in (data.y, data.weights) if array is not None)):
            little = rows.dtype.newbyteorder("<")
            digest.update(f"{little.str}{rows.shape}".encode())
            for block in [rows.array] if rows.array is not None else rows.blocks(little):
                digest.update(np.ascontiguousarray(block, little).reshape(-1).view(np.uint8).data)
        _digests[data] = digest.hexdigest()
    return _digests[data]


def digest_of_settings(settings: Settings, versions: Mapping[str, str]) -> str:
    """The SHA-256 of all that fixes the bits."""
    content = json.dumps({"settings": settings, "versions": versions}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def differences(one: Settings, other: Settings, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """List what differs, as (name, one's value, other's value); names of nested ones are joined by a point."""
    found: list[tuple[str, Any, Any]] = []
    for name in [*one, *(name for name in other if name not in one)]:
        a, b = one.get(name), other.get(name)
        if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
            a, b = ({str(place): item for place, item in enumerate(items)} for items in (a, b))
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            found.append((prefix + name, a, b))
    return found
