"""States of runs in files that were damaged, and ones that a stranger wrote, with right digests and checksums."""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

import dist_relu as dr
from dist_relu import nn, optim
from tests.long.harness import check_refused, dumped, mutate_bytes, mutate_json

_MOST_SECONDS = 1.0


class _Remembers:
    """Remembers some of everything."""

    def on_fit_end(self, trainer: dr.Trainer) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {"best": 0.5, "none": None, "lists": [[1, "a"], {"b": True}], "array": np.arange(6.0).reshape(2, 3)}


def prepare(folder: Path) -> tuple[Path, list[tuple[bytes, dr.RunState]]]:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 64)).astype(np.float32), rng.integers(0, 3, 30)
    runs: list[tuple[nn.Sequential, optim.Optimizer]] = [
        (nn.mlp([5, 4], 3), optim.SGD(0.01, momentum=0.9)),
        (nn.cnn((8, 8, 1), 3), optim.Adam(0.01)),
        (nn.Sequential(nn.Dense(3), dtype=np.float64), optim.LAMB(0.01)),
    ]
    path = folder / "state.safetensors"
    files = []
    with dr.start(backend="serial") as coordinator:
        for model, optimizer in runs:
            with coordinator.trainer(model, (x, y), optimizer, batch_size=8, ema_decay=0.9) as trainer:
                trainer.fit(steps=7, validation=(x, y), callbacks=[_Remembers()])
                dr.save_state(trainer.state(), path)
                files.append((path.read_bytes(), dr.load_state(path)))
    return path, files


def attempt(files: tuple[Path, list[tuple[bytes, dr.RunState]]], rng: np.random.Generator) -> None:
    path, originals = files
    content, state = originals[int(rng.integers(len(originals)))]
    is_stranger = rng.random() < 0.6
    path.write_bytes(_of_a_stranger(rng, content) if is_stranger else mutate_bytes(rng, content))
    began = time.process_time()
    loaded = check_refused(lambda: dr.load_state(path), dr.CheckpointError)
    took = time.process_time() - began
    assert took < _MOST_SECONDS, f"it took {took:.1f} s"
    if loaded is None:
        return
    assert loaded.vectors.nbytes + loaded.records.nbytes <= path.stat().st_size
    if not is_stranger:
        assert path.read_bytes() == content
        assert loaded == state
    dr.save_state(loaded, path)
    assert dr.load_state(path).step == loaded.step


def _of_a_stranger(rng: np.random.Generator, content: bytes) -> bytes:
    """With odd settings, shapes and types, but digest and checksums that are right."""
    size = int.from_bytes(content[:8], "little")
    header, values = json.loads(content[8 : 8 + size]), bytearray(content[8 + size :])
    meta = header.pop("__metadata__")
    del meta["header_sha256"]
    what = str(rng.choice(["run", "run", "run", "layers", "input_shape", "meta", "tensors", "values", "size"]))
    if what in ("run", "layers", "input_shape"):
        meta[what] = dumped(mutate_json(rng, json.loads(meta[what])))
    elif what == "meta":
        meta = mutate_json(rng, meta)
    elif what == "tensors":
        header = mutate_json(rng, header)
    elif what == "values":
        values[int(rng.integers(len(values)))] ^= 1 << int(rng.integers(8))
        meta |= _checksums(json.loads(content[8 : 8 + size]), bytes(values))
    if isinstance(meta, dict):
        meta["header_sha256"] = hashlib.sha256(dumped(dict(sorted(meta.items()))).encode()).hexdigest()
    whole: Any = {"__metadata__": meta, **header} if isinstance(header, dict) else header
    text = dumped(whole).encode()
    text += b" " * (-len(text) % 8)
    size = int(rng.choice([0, 1, 2**22, 2**31, 2**40, 2**62])) if what == "size" else len(text)
    return size.to_bytes(8, "little") + text + values


def _checksums(header: dict[str, Any], values: bytes) -> dict[str, str]:
    """Those of a file with these tensors."""
    del header["__metadata__"]
    params = [name for name in header if name[0].isdigit()]
    vectors = [name for name in header if name.startswith(("optimizer", "average"))]
    others = [name for name in header if name not in params and name not in vectors]

    def of(names: list[str]) -> str:
        value = 0
        for name in names:
            begin, end = header[name]["data_offsets"]
            value = zlib.crc32(values[begin:end], value)
        return f"{value:08x}"

    return {"params_crc32": of(params), "others_crc32": of(vectors + others)}
