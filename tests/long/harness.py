"""Damaged and odd files by the thousand: the same ones for the same seed.

A module that tests a kind of file has `prepare(folder)`, which makes what is mutated, and `attempt(files, rng)`, which
damages it, reads it, and fails if anything but the package's own error for such files comes of it. Attempts are made in
processes that may take 1 GB more than they begin with, and of which none may take more than 10 s of the processor.
"""

from __future__ import annotations

import copy
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_IN_ONE_PROCESS = 2_500
_MOST_BYTES, _MOST_SECONDS = 2**30, 10.0
_TIMEOUT_S = 1800

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 255, 2**31, 2**63, 10**12, 10**30, -(10**30), 0.5, -1.5, 1e-320, 1e308),
    *(
        float("nan"),
        float("inf"),
        float("-inf"),
        "",
        "x",
        "1",
        "nan",
        "Dense",
        "\ud800",
        "\0",
        "é" * 300,
        "$x_",
        "a\nb",
    ),
    *([], [[]], [1], [0, 0], [-1], [None], {}, {"Dense": {}}, {"Dense": [1]}, {"ReLU": {}}, {"": {}}, {"x": 1, "y": 2}),
    *({"Residual": {"body": 1}}, {"dict": {"a": 1}}, {"Conv2d": {"channels": 10**9, "kernel_size": 10**9}}),
)


def mutate_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """Flip bits, cut off, insert, take out, double or exchange parts, once or a few times."""
    data = bytearray(content)
    for _ in range(int(rng.choice([1, 1, 1, 2, 5]))):
        size = max(len(data), 1)
        start = int(rng.integers(size))
        length = int(min(rng.choice([1, 2, 4, 8, 64, 1000]), size - start))
        other = int(rng.integers(size))
        part = bytes(data[start : start + length])
        match int(rng.integers(8)):
            case 0 | 1 if data:
                data[start] ^= 1 << int(rng.integers(8))
            case 2 if data:
                data[start] = int(rng.integers(256))
            case 3:
                del data[start:]
            case 4:
                data[start:start] = rng.bytes(length)
            case 5:
                del data[start : start + length]
            case 6:
                data[other:other] = part * int(rng.choice([1, 2, 20]))
            case _:
                data[start : start + length] = data[other : other + length]
    return bytes(data)


def mutate_json(rng: np.random.Generator, content: Any) -> Any:
    """Replace, take out, double or exchange values, once or a few times."""
    root = [copy.deepcopy(content)]
    for _ in range(int(rng.choice([1, 1, 2, 4]))):
        places = list(_places(root))
        holder, key = places[int(rng.integers(len(places)))]
        other_holder, other_key = places[int(rng.integers(len(places)))]
        match int(rng.integers(8)):
            case 0 if holder is not root:
                del holder[key]
            case 1:
                holder[key] = [holder[key]] * int(rng.choice([1, 2, 100]))
            case 2:
                nested: Any = holder[key]
                for _ in range(int(rng.choice([3, 100, 2000]))):
                    nested = [nested]
                holder[key] = nested
            case 3:
                holder[key] = copy.deepcopy(other_holder[other_key]) if _depth(other_holder[other_key]) < 50 else None
            case 4 if isinstance(holder, dict):
                holder[str(rng.choice(["units", "x", "", "weight", "é", "\ud800"]))] = holder.pop(key)
            case _:
                holder[key] = copy.deepcopy(ODD[int(rng.integers(len(ODD)))])
        if _depth(root) > 50:
            break  # copies and walks of ours would go too deep
    return root[0]


def dumped(content: Any) -> str:
    """As JSON, however deep."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        return json.dumps(content)
    finally:
        sys.setrecursionlimit(limit)


def check_refused(read: Callable[[], Any], kind: type[Exception]) -> Any:
    """What is read, or None where it is refused, as it should be."""
    refusal: BaseException
    try:
        return read()
    except kind as error:
        refusal = error
    assert str(refusal), "an error without a word"
    while refusal.__cause__:
        refusal = refusal.__cause__
        assert not isinstance(refusal, MemoryError), f"more than {_MOST_BYTES:,} bytes were asked for"
    return None


def check_mutations(name: str, count: int) -> None:
    """Make `count` attempts of a module of this folder, and fail with the first ones that failed."""
    failures, slowest, peak_bytes = [], 0.0, 0
    for first in range(0, count, _IN_ONE_PROCESS):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-m",
                __name__,
                name,
                str(first),
                str(min(first + _IN_ONE_PROCESS, count)),
                folder,
            ]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        last = (done.stdout.splitlines() or [""])[-1]
        assert done.returncode == 0, f"mutations from {first} on: exit code {done.returncode}: {done.stderr[-2000:]}"
        told = json.loads(last)
        failures += told["failures"]
        slowest, peak_bytes = max(slowest, told["slowest_s"]), max(peak_bytes, told["peak_bytes"])
    about = (
        f"{len(failures)} failed, slowest {slowest:.2f} s of the processor, {peak_bytes / 1e6:.0f} MB more at the peak"
    )
    sys.stdout.write(f"{name}: {count:,} mutations, {about}\n")
    assert not failures, "\n".join(failures[:5])
    assert slowest < _MOST_SECONDS
    assert peak_bytes < _MOST_BYTES


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every value inside of `value`, each as what holds it and its key there."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in [(value, key), *_places(value[key])]]


def _depth(value: Any) -> int:
    depth, layer = 0, [value]
    while layer:
        depth += 1
        layer = [
            item
            for one in layer
            for item in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())
        ]
    return depth


def _attempt_all(name: str, first: int, last: int, folder: Path) -> dict[str, Any]:
    module = importlib.import_module(f"tests.long.{name}")
    files = module.prepare(folder)
    module.attempt(files, np.random.default_rng(0))  # what is loaded and compiled at the first time
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: to compile kernels took much
    began_with_bytes = _peak_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MOST_BYTES, resource.RLIM_INFINITY))
    failures, slowest = [], 0.0
    for number in range(first, last):
        began = time.process_time()
        try:
            module.attempt(files, np.random.default_rng([number, *name.encode()]))
        except Exception:
            failures.append(f"mutation {number}: {traceback.format_exc()[-1500:]}")
        slowest = max(slowest, time.process_time() - began)
    return {"failures": failures, "slowest_s": slowest, "peak_bytes": _peak_bytes() - began_with_bytes}


def _peak_bytes() -> int:
    """The most memory that this process has held since its peak was forgotten."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


if __name__ == "__main__":
    result = _attempt_all(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    sys.stdout.write(json.dumps(result) + "\n")
