"""`dist-relu bench ...`: tables on the terminal, JSON in a file."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dist_relu.cli.types import Commands, choice, json_option
from dist_relu.coordinator import start
from dist_relu.core import machine
from dist_relu.core.files import write_json


@click.group(cls=Commands)
def bench() -> None:
    """Measure speed, always side by side with something else.

    Cases are models with batches of random samples: mlp-tiny (784-64-32-16-10, batches of 64), mlp-small
    (784-256-128-10, 128), mlp-medium (784-1024-1024-10, 256), mlp-large (1024-4096-4096-1024-10, 512), cnn-mnist and
    cnn-cifar (two convolutions, 64 images of 28x28 and of 32x32 in colour), resnet-8 (64 images of 32x32), rnn (64
    sequences of 64 steps), policy-1 and policy-64 (a small policy, for 1 and 64 states).
    """


@bench.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="The number of workers.")
@click.option("--rounds", type=click.IntRange(1), default=9, show_default=True, help="The number of repetitions.")
@json_option
def checkpoint(folders: tuple[Path, ...], workers: int, rounds: int, path: Path | None) -> None:
    """A run of mlp-medium with a checkpoint every 100 steps in each of FOLDERS, beside one without.

    \b
    Example: dist-relu bench checkpoint --workers 2 /dev/shm /var/tmp
    """
    from dist_relu.bench import checkpoints as benchmark

    results = benchmark.run(workers, rounds, list(folders))
    table = Table("case", "folder", "without ms", "with ms", "cost", title="Training step, median")
    for r in results:
        table.add_row(r.case, r.folder, f"{r.plain_ms:.3f}", f"{r.saved_ms:.3f}", f"{r.cost:+.2%}")
    _show(table, [asdict(result) for result in results], path)


@bench.command()
@json_option
def allreduce(path: Path | None) -> None:
    """The node's all-reduce beside MPI_Allreduce, 4 kB to 40 MB, on 2 and 4 processes."""
    from dist_relu.bench import allreduce as benchmark

    timings = [timing for processes in (2, 4) for timing in benchmark.run(processes)]
    table = Table("processes", "size", "dist_relu ms", "MPI_Allreduce ms", "MPI/ours", title="Sum over processes")
    for t in timings:
        ratio = f"{t.mpi_ms / t.ours_ms:.1f}"
        table.add_row(str(t.processes), f"{t.size_bytes / 1e3:,.0f} kB", f"{t.ours_ms:.4f}", f"{t.mpi_ms:.4f}", ratio)
    _show(table, [asdict(timing) for timing in timings], path)


@bench.command()
@click.option("--backend", type=choice(["mpi", "ray"]), default="mpi", show_default=True, help="What the workers are.")
@json_option
def exchange(backend: str, path: Path | None) -> None:
    """The sum over several nodes, 4 kB to 40 MB, beside what MPI or Ray have.

    \b
    With two hosts: mpirun -hosts HOST1,HOST2 -n 2 dist-relu bench exchange
    On a Ray cluster of several nodes: dist-relu bench exchange --backend ray
    """
    from dist_relu.bench import exchange as benchmark

    with ExitStack() as stack:
        coordinator = stack.enter_context(start(backend=backend))
        if coordinator.nodes < 2:
            raise click.UsageError("bench exchange is for workers on several nodes; these run on one.")
        if backend == "ray":
            from dist_relu.bench.exchange_ray import ray_peers

            peers = stack.enter_context(ray_peers(coordinator))
        else:
            peers = benchmark.mpi_peers(coordinator)
        timings = benchmark.run(coordinator, peers)
    table = Table("nodes", "workers", "size", "dist_relu ms", title="Sum over nodes, median")
    for name in timings[0].peers_ms:
        table.add_column(f"{name} ms")
        table.add_column("/ours")
    for t in timings:
        columns = [text for ms in t.peers_ms.values() for text in (f"{ms:.2f}", f"{ms / t.ours_ms:.1f}")]
        table.add_row(str(t.nodes), str(t.workers), f"{t.size_bytes / 1e3:,.0f} kB", f"{t.ours_ms:.2f}", *columns)
    _show(table, [asdict(timing) for timing in timings], path)


@bench.command()
@click.option("--workers", type=click.IntRange(2), default=2, show_default=True, help="The number of workers.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="The number of repetitions.")
@json_option
def scaling(workers: int, rounds: int, path: Path | None) -> None:
    """The training speed of several workers beside that of one."""
    from dist_relu.bench import scaling as benchmark

    results = benchmark.run(workers, rounds)
    table = Table("case", "1 worker ms", f"{workers} workers ms", "speed-up", title="Training step, median")
    for r in results:
        table.add_row(r.case, f"{r.one_ms:.3f}", f"{r.several_ms:.3f}", f"{r.speed_up:.2f}")
    _show(table, [asdict(result) for result in results], path)


@bench.command()
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="The number of workers.")
@click.option("--rounds", type=click.IntRange(1), default=9, show_default=True, help="The number of repetitions.")
@json_option
def watching(workers: int, rounds: int, path: Path | None) -> None:
    """A training step of a run that is watched beside one of a run that is not.

    Between the steps that are watched, a run with a watch still takes notice of which units are ever active.
    """
    from dist_relu.bench import watching as benchmark

    results = benchmark.run(workers, rounds)
    table = Table(
        "case", "no watch ms", "between ms", "watched ms", "between", "watched", title="Training step, median"
    )
    for r in results:
        milliseconds = (f"{ms:.3f}" for ms in (r.plain_ms, r.between_ms, r.watched_ms))
        table.add_row(r.case, *milliseconds, f"{r.between_cost:+.1%}", f"{r.watched_cost:+.1%}")
    _show(table, [asdict(result) for result in results], path)


@bench.command()
@click.option("--peer", default="torch,jax", show_default=True, help="Measure beside torch, jax, or both with a comma.")
@click.option("--case", "cases", multiple=True, help="Measure this case; may be given several times. Default: all.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="The number of repetitions.")
@json_option
def step(peer: str, cases: tuple[str, ...], rounds: int, path: Path | None) -> None:
    """A whole training step beside PyTorch and JAX, one core each."""
    from dist_relu.bench import step as benchmark
    from dist_relu.bench.peers import PEERS

    peers = _chosen("--peer", [name for name in peer.split(",") if name], list(PEERS))
    chosen = _chosen("--case", list(cases), [case.name for case in benchmark.CASES])
    for name in peers:
        _check_installed(name)
    table = Table("case", "ours ms", title="Training step, SGD with momentum, one core")
    for name in peers:
        table.add_column(f"{name} ms")
        table.add_column(f"{name}/ours")
    table.add_column("outside products")
    timings = benchmark.run(chosen or [case.name for case in benchmark.CASES], peers, rounds)
    for t in timings:
        columns = [text for name in peers for text in (f"{t.peers_ms[name]:.3f}", f"{t.ratios[name]:.2f}")]
        table.add_row(t.case, f"{t.ours_ms:.3f}", *columns, f"{t.outside_products:.0%}")
    _show(table, [asdict(timing) for timing in timings], path)


def _chosen(option: str, names: list[str], known: list[str]) -> list[str]:
    for name in names:
        if name not in known:
            raise click.UsageError(f"{option} {name}: expected one of {', '.join(known)}.")
    return names


def _check_installed(package: str) -> None:
    if find_spec(package) is None:
        raise click.UsageError(f"--peer {package}: not installed. Install it: pip install 'dist_relu[peers]'.")


@bench.command()
@click.option("--peer", type=choice(["torch"]), help="Measure beside this library.")
@click.option("--rounds", type=click.IntRange(1), default=15, show_default=True, help="The number of repetitions.")
@json_option
def kernels(peer: str | None, rounds: int, path: Path | None) -> None:
    """Every activation forward and backward on 16 MB, beside the machine's copy bandwidth."""
    if peer:
        _check_installed(peer)
    from dist_relu.bench import kernels as benchmark

    timings = benchmark.run(peer, rounds)
    table = Table("activation", "direction", "dist_relu ms", "of copy bandwidth", "torch ms", "torch/ours")
    table.title = "float32, 16 MB, one thread, median"
    for t in timings:
        theirs = ["", ""]
        if t.torch_ms is not None:
            theirs = [f"{t.torch_ms:.2f}{'*' if t.fresh else ' '}", f"{t.torch_ms / t.ours_ms:.2f}"]
        table.add_row(t.activation, t.direction, f"{t.ours_ms:.2f}", f"{t.copy_share:.0%}", *theirs)
    _show(table, [asdict(timing) for timing in timings], path)
    if peer:
        click.echo("* allocates its result, for want of a variant that does not")


def _show(table: Table, rows: list[dict[str, Any]], path: Path | None) -> None:
    for column in table.columns[1:]:
        column.justify = "right"
    table.box, table.pad_edge, table.title_justify, table.caption_justify = None, False, "left", "left"
    table.caption = f"{machine.cpu_name()}, {machine.num_cores()} cores, {machine.blas_name()}"
    Console().print(table)
    if path:
        about = {"cpu": machine.cpu_name(), "blas": machine.blas_name(), "versions": machine.versions()}
        write_json(path, {**about, "rows": rows})
