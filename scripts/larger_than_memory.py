"""Train on a mapped file that is larger than the memory of a control group, beside the same from memory.

    sudo python scripts/larger_than_memory.py --gigabytes 12 --limit 2

Writes the file, trains for some seconds each time in a process of its own, and removes it. Control groups need root.
Prints samples a second, and the most memory that the group held, its part of the page cache included. "cached": the
file's pages are in the page cache, charged to whoever wrote them. "not cached": they were dropped before, so that the
group has to read them, and to give them up again: row by row at random, which is no faster than the disk has them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))  # of a checkout that is not installed

import dist_relu as dr
from dist_relu import nn, optim

_FEATURES = 3072
_BLOCK_ROWS = 1 << 14
_CLASSES = 10


def write(path: Path, gigabytes: float) -> int:
    """Write rows of bytes; returns how many."""
    block = np.random.default_rng(0).integers(0, 256, (_BLOCK_ROWS, _FEATURES), np.uint8)
    num_blocks = int(gigabytes * 1e9 / block.nbytes)
    shape = (num_blocks * _BLOCK_ROWS, _FEATURES)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(
            file,
            {"descr": "|u1", "fortran_order": False, "shape": shape},
        )
        for _ in range(num_blocks):
            file.write(block.data)
        file.flush()
        os.fsync(file.fileno())
    return shape[0]


def forget(path: Path) -> None:
    """Drop the pages of a file from the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def remember(path: Path) -> float:
    """Read a file, so that it is in the page cache, as far as there is room; returns the share that is."""
    with open(path, "rb", buffering=0) as file:
        block = bytearray(1 << 24)
        while file.readinto(block):
            pass
    rows = dr.data.Rows(dr.data.NpyFile.of(path))
    some = np.random.default_rng(1).integers(0, len(rows), 2000)
    return float(np.mean([rows.bring(some[number : number + 1]) for number in range(len(some))]))


def measure(path: Path, units: int, seconds: float, *, in_memory: bool) -> None:
    """Train for some time, and print how many samples a second that were."""
    file = dr.data.NpyFile.of(path)
    rows = dr.data.Rows(file, scale=1 / 255)
    if in_memory:
        some = np.arange(min(len(rows), 300_000))
        rows = dr.data.Rows(file.read(some), scale=1 / 255)
    y = np.arange(len(rows)) % _CLASSES
    model = nn.mlp((units,), _CLASSES)
    with (
        dr.start(backend="serial") as coordinator,
        coordinator.trainer(model, dr.Dataset(rows, y), optim.SGD(0.01), batch_size=128, shards=1) as trainer,
    ):
        trainer.fit(steps=20)
        before = trainer.step
        trainer.fit(epochs=1, max_seconds=seconds)
        records = trainer.records[before:]
    print(f"{records['num_samples'].sum() / records['seconds'].sum():.0f}")


@contextmanager
def control_group(limit_bytes: int) -> Iterator[tuple[Path, Path]]:
    """A control group with a limit; gives its list of processes, and the file that tells the most it held."""
    root = Path("/sys/fs/cgroup")
    is_first = (root / "memory").is_dir()
    group = root / ("memory" if is_first else "") / f"dist_relu_{os.getpid()}"
    group.mkdir()
    try:
        (group / ("memory.limit_in_bytes" if is_first else "memory.max")).write_text(str(limit_bytes))
        yield group / "cgroup.procs", group / ("memory.max_usage_in_bytes" if is_first else "memory.peak")
    finally:
        group.rmdir()


def run(options: argparse.Namespace, units: int, *, limited: bool) -> tuple[float, float]:
    """Measure in a process of its own; returns samples a second, and the gigabytes that its group held at most."""
    command = [*options.launcher.split(), sys.executable, __file__, "--measure", "file" if limited else "memory"]
    command += ["--path", str(options.path), "--units", str(units), "--seconds", str(options.seconds)]
    if not limited:
        return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout), float("nan")
    with control_group(int(options.limit * 1e9)) as (processes, peak):
        joining = ["sh", "-c", f'echo $$ > {processes} && exec "$@"', "sh", *command]
        rate = float(subprocess.run(joining, check=True, stdout=subprocess.PIPE).stdout)
        return rate, int(peak.read_text()) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=12.0)
    parser.add_argument("--limit", type=float, default=2.0, help="of the control group, in gigabytes")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--launcher", default="", help='what to start the measured programs with: "taskset -c 1"')
    parser.add_argument("--path", type=Path, default=Path("/tmp/larger_than_memory.npy"))
    parser.add_argument("--units", type=int, nargs="+", default=[64, 1024], help="of the hidden layer, one run each")
    parser.add_argument("--measure", choices=["file", "memory"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.path, options.units[0], options.seconds, in_memory=options.measure == "memory")
        return
    try:
        num_rows = write(options.path, options.gigabytes)
        print(f"{num_rows:,} rows, {options.path.stat().st_size / 1e9:.1f} GB; limit {options.limit:g} GB")
        for units in options.units:
            memory, _ = run(options, units, limited=False)
            print(f"mlp:{units}  from memory              {memory:8,.0f} samples/s", flush=True)
            for place in ("cached", "not cached"):
                if place == "not cached":
                    forget(options.path)
                else:
                    print(f"{remember(options.path):.0%} of the file is in the page cache")
                rate, peak = run(options, units, limited=True)
                share = rate / memory
                line = (
                    f"mlp:{units}  file, {place:<10}         {rate:8,.0f} samples/s  {share:4.0%}  {peak:.2f} GB held"
                )
                print(line, flush=True)
    finally:
        options.path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
