"""Model files that were damaged, and ones that a stranger wrote, with right digests."""

from __future__ import annotations

import hashlib
import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

import dist_relu as dr
from dist_relu import nn
from tests.long.harness import check_refused, dumped, mutate_bytes, mutate_json

_MOST_NUMBERS = 10**5


def prepare(folder: Path) -> tuple[Path, list[tuple[bytes, nn.Sequential]]]:
    models = [
        nn.mlp([5, 4], 3).build((6,)),
        nn.cnn((8, 8, 1), 3).build((64,)),
        nn.resnet(8, (4, 4, 1), 2).build((16,)),
        nn.policy(4, 2, [3], "tanh-gaussian"),
        nn.Sequential(nn.RNN(5, activation=nn.Tanh(), sequences=True), nn.Flatten(), nn.Dense(3)).build((4, 3)),
        nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Dense(2, init=nn.Orthogonal(0.5))).build((4,)),
        nn.Sequential(
            nn.Residual((nn.Dense(6), nn.GELU(approximate="tanh"), nn.Dense(6)), (nn.Dense(6),)),
            *(nn.SwiGLU(), nn.LayerNorm(), nn.Dropout(0.1), nn.ActivityPenalty(0.001), nn.RReLU(), nn.CReLU()),
            *(nn.PReLU(), nn.LeakyReLU(0.2), nn.ELU(0.5), nn.Softplus(), nn.Dense(2)),
            dtype=np.float64,
        ).build((6,)),
    ]
    models[0].loss = nn.BinaryCrossEntropy((1.0, 2.0, 0.5))
    models[1].loss = nn.Focal(alpha=0.25)
    path = folder / "model.safetensors"
    files = []
    for model in models:
        dr.save_model(model.initialize(), path)
        files.append((path.read_bytes(), model))
    return path, files


def attempt(files: tuple[Path, list[tuple[bytes, nn.Sequential]]], rng: np.random.Generator) -> None:
    path, originals = files
    content, model = originals[int(rng.integers(len(originals)))]
    is_stranger = rng.random() < 0.6
    path.write_bytes(_of_a_stranger(rng, content) if is_stranger else mutate_bytes(rng, content))
    loaded = check_refused(lambda: dr.load_model(path), dr.CheckpointError)
    if loaded is None:
        return
    assert loaded.values.nbytes <= path.stat().st_size
    if not is_stranger:
        assert (repr(loaded), loaded.input_shape) == (repr(model), model.input_shape)
        assert loaded.sha256() == model.sha256()
    elif sum(map(prod, [loaded.input_shape, *loaded.layer_shapes])) < _MOST_NUMBERS:
        y = check_refused(lambda: loaded.forward(np.zeros((2, *loaded.input_shape), loaded.dtype)), ValueError)
        assert y is None or y.shape == (2, *loaded.output_shape)


def _of_a_stranger(rng: np.random.Generator, content: bytes) -> bytes:
    """With odd layers, shapes and types, but digests that are right."""
    size = int.from_bytes(content[:8], "little")
    header, values = json.loads(content[8 : 8 + size]), content[8 + size :]
    meta = header.pop("__metadata__")
    del meta["header_sha256"]
    kinds = ["layers", "layers", "layers", "input_shape", "meta", "tensors", "values"]
    what = str(rng.choice(kinds + ["loss"] * ("loss" in meta)))
    if what in ("layers", "input_shape", "loss"):
        meta[what] = dumped(mutate_json(rng, json.loads(meta[what])))
    elif what == "meta":
        meta = mutate_json(rng, meta)
    elif what == "tensors":
        header = mutate_json(rng, header)
    else:
        array = np.frombuffer(bytearray(values), f"<f{np.dtype(meta['dtype']).itemsize}")
        array[int(rng.integers(len(array)))] = rng.choice([np.nan, np.inf, 1e38, -1e38, 1e-40])
        meta["params_sha256"] = hashlib.sha256(array.tobytes()).hexdigest()
        values = array.tobytes()
    if isinstance(meta, dict) and what != "tensors":
        meta["header_sha256"] = hashlib.sha256(dumped(dict(sorted(meta.items()))).encode()).hexdigest()
    whole: Any = {"__metadata__": meta, **header} if isinstance(header, dict) else header
    text = dumped(whole).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + values
