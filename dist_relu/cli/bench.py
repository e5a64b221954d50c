"""`dist-relu bench ...`: tables on the terminal, JSON in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from dist_relu.cli.bench_report import everything
from dist_relu.cli.bench_tables import (
    checkpoints_table,
    estimators_table,
    kernels_table,
    learning_table,
    parallel_tables,
    products_table,
    serving_table,
    show,
    starting_table,
    step_table,
    sum_curves,
    sums_table,
    watching_table,
)
from dist_relu.cli.commands import Commands
from dist_relu.cli.common import check_peer_installed, data_option, make_folder, new_attempts, usage_errors
from dist_relu.cli.measured import tell_last
from dist_relu.cli.parsing import parse_sizes
from dist_relu.cli.progress import StatusLine
from dist_relu.cli.types import FOLDER, SomeNames, choice, json_option
from dist_relu.core import machine
from dist_relu.core.files import write_json
from dist_relu.core.launched import may_be_rank
from dist_relu.data import load
from dist_relu.reports.plots import draw_sums
from dist_relu.reports.plots.style import COLUMN, PLAIN

if TYPE_CHECKING:
    from dist_relu.bench.sums import Timing as SumTiming

T = TypeVar("T")


@click.group(cls=Commands)
def bench() -> None:
    """Measure speed, always side by side with something else.  Ctrl-C tells what was measured until then.

    Cases are models with batches of random samples: mlp-tiny (784-64-32-16-10, batches of 64), mlp-small
    (784-256-128-10, 128), mlp-medium (784-1024-1024-10, 256), mlp-large (1024-4096-4096-1024-10, 512), cnn-mnist and
    cnn-cifar (two convolutions, 64 images of 28x28 and of 32x32 in colour), resnet-8 (64 images of 32x32), rnn (64
    sequences of 64 steps), policy-1 and policy-64 (a small policy, for 1 and 64 states). With shapes that are not
    round: small-50 and small-192 (mlp-small, in batches of that size), mlp-1000 (30-100-100-1000, 64), mlp-deep (784,
    eight layers of 64, 10, 64), cnn-5x5 (two convolutions of 48 filters and stride 2, 64 images of 32x32), rnn-200 (200
    units).
    """


bench.add_command(everything)

isa_option = click.option(
    "--isa",
    "instruction_set",
    type=choice(["native", "avx2", "avx512"]),
    default="native",
    show_default=True,
    help="The instruction set that all sides are held to; native is what the processor has.",
)


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

    _tell_rows(benchmark.run(workers, rounds, list(folders)), checkpoints_table, path)


@bench.command()
@click.option(
    "--backend",
    "backends",
    type=SomeNames(("local", "mpi", "ray")),
    metavar="NAME,...",
    help="What the workers are: local, mpi, ray. Default: mpi under mpirun, otherwise mpi and ray as installed.",
)
@click.option(
    "--workers",
    "worker_list",
    metavar="N,N,...",
    help="Measure on so many workers. Default: all ranks under mpirun, otherwise 2, on Ray on several nodes.",
)
@click.option(
    "--output", type=FOLDER, metavar="FOLDER", help="Write what is measured to FOLDER, as JSON and as a picture."
)
def comm(backends: str | None, worker_list: str | None, output: Path | None) -> None:
    """Sums over all workers, 4 kB to 40 MB: ours, MPI_Allreduce, Gloo, and what Ray has, by turns.

    On one node beside the same bytes read and written in memory, on several beside the same bytes over the wire, by all
    at once: no sum can be faster. MPI_Allreduce is measured on the workers of mpi, Ray's object store and its
    collectives on those of ray, Gloo on all if PyTorch is installed. Without mpirun, mpi starts ranks on this machine.

    \b
    Examples:
      dist-relu bench comm --workers 2,4 --output sums
      mpirun -hosts HOST1,HOST2,HOST3 -n 3 dist-relu bench comm --workers 2,3
      dist-relu bench comm --backend ray     (where a Ray cluster runs)
    """
    from dist_relu.bench import sums as benchmark

    with usage_errors():
        numbers = parse_sizes("--workers ", worker_list) if worker_list else [None if may_be_rank() else 2]
    if 1 in numbers:
        raise click.UsageError(f"--workers {worker_list}: a worker alone has nothing to add up. Pass 2 or more.")
    if output:
        make_folder("--output", output)

    def measured(on_phase: Callable[[str], object]) -> Iterator[list[list[SumTiming]]]:
        whole: list[list[SumTiming]] = []
        for backend in _backends(backends):
            for number in numbers:
                on_phase(f"{backend}, {number or 'all'} workers")
                is_job = backend == "mpi" and not may_be_rank()
                group: list[SumTiming] = []
                for group in benchmark.of_job(number or 2) if is_job else benchmark.run(backend, number, on_phase):
                    yield [*whole, group]
                whole.append(group)

    def tell(groups: Sequence[Sequence[SumTiming]], is_complete: bool) -> None:
        for group in groups:
            show(sums_table(group), is_complete=is_complete)
        if output:
            _write_sums(groups, output, is_complete)

    with StatusLine(Console(stderr=True)) as status:
        tell_last(measured(status.phase), tell, output)
    if find_spec("torch") is None:
        click.echo("No Gloo: it needs torch. Install it: pip install 'dist_relu[peers]'.", err=True)


def _backends(given: str | None) -> list[str]:
    """The backends that `comm` measures on."""
    if given is None:
        if may_be_rank():
            return ["mpi"]
        return [name for name, package in (("mpi", "mpi4py"), ("ray", "ray")) if find_spec(package)] or ["local"]
    return given.split(",")


def _write_sums(timings: Sequence[Sequence[SumTiming]], output: Path, is_complete: bool) -> None:
    attempts = new_attempts()
    with attempts.writing(output / "sums.json"):
        _write(output / "sums.json", [one for group in timings for one in group], is_complete)
    if find_spec("matplotlib"):
        for name, form in (("sums.png", PLAIN), ("sums.pdf", COLUMN)):
            with attempts.writing(output / name):
                draw_sums([sum_curves(group) for group in timings], output / name, form=form)
    else:
        click.echo("No picture: it needs matplotlib. Install it: pip install 'dist_relu[plot]'.", err=True)
    attempts.check()


@bench.command()
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="The number of workers.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="How often there and back.")
@json_option
def watching(workers: int, rounds: int, path: Path | None) -> None:
    """A training step of a run that is watched beside one of a run that is not.

    Between the steps that are watched, a run with a watch still takes notice of which units are ever active.
    """
    from dist_relu.bench import watching as benchmark

    _tell_rows(benchmark.run(workers, rounds), watching_table, path)


@bench.command("rl")
@click.option("--workers", type=click.IntRange(2), default=2, show_default=True, help="The number of workers.")
@click.option("--steps", type=click.IntRange(1), default=100_000, show_default=True, help="How long a policy learns.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="The number of repetitions.")
@json_option
def learning(workers: int, steps: int, rounds: int, path: Path | None) -> None:
    """How fast a policy learns CartPole-v1 on several workers beside one."""
    from dist_relu.bench import learning as benchmark

    tell_last(
        benchmark.run(workers, rounds, steps),
        lambda result, is_complete: _show([learning_table(result)], [result], path, is_complete),
        path,
    )


@bench.command()
@data_option
@click.option("--epochs", type=click.IntRange(1), default=1, show_default=True, help="The number of epochs.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="The number of workers.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="The number of repetitions.")
@json_option
def sklearn(source: str, epochs: int, workers: int, rounds: int, path: Path | None) -> None:
    """Fits of ReLUClassifier beside those of scikit-learn's MLPClassifier.

    \b
    Example: dist-relu bench sklearn --data mnist --epochs 5
    """
    if find_spec("sklearn") is None:
        raise click.UsageError("bench sklearn needs scikit-learn. Install it: pip install 'dist_relu[sklearn]'.")
    from dist_relu.bench import estimators as benchmark

    with usage_errors():
        data = load(source)
    _tell_rows(benchmark.run(data, epochs, workers, rounds), lambda fits: estimators_table(fits, epochs), path)


@bench.command()
@isa_option
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="The number of repetitions.")
@json_option
def products(instruction_set: str, rounds: int, path: Path | None) -> None:
    """Matrix products of dense layers beside the core's peak of fused multiply-adds."""
    from dist_relu.bench import products as benchmark

    def tell(found: benchmark.Speeds, is_complete: bool) -> None:
        about = {"instruction_set": found.instruction_set, "peak_gflops": found.peak_gflops}
        _show([products_table([found])], found.speeds, path, is_complete, **about)

    with usage_errors():
        tell_last(benchmark.run(rounds, instruction_set), tell, path)


@bench.command()
@click.option("--requests", type=click.IntRange(10), default=10_000, show_default=True, help="How many to each server.")
@click.option("--clients", type=click.IntRange(1), default=50, show_default=True, help="How many ask at once.")
@click.option("--replicas", type=click.IntRange(1), default=1, show_default=True, help="Processes that compute for us.")
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True, help="The number of repetitions.")
@json_option
def serve(requests: int, clients: int, replicas: int, rounds: int, path: Path | None) -> None:
    """Predictions over HTTP on this machine: dist-relu serve beside a bare FastAPI with onnxruntime.

    Then once more while the model is replaced and a replica is killed.
    """
    from dist_relu.bench import serving as benchmark

    results = benchmark.run(requests, clients, replicas, rounds)
    _tell_rows(results, lambda loads: serving_table(loads, clients), path)


@bench.command("start")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="The number of repetitions.")
@json_option
def starting(rounds: int, path: Path | None) -> None:
    """How long programs take to begin, and to train for a step that has its kernels to compile."""
    from dist_relu.bench import starting as benchmark

    _tell_rows(benchmark.run(rounds), starting_table, path)


def case_option(default: str) -> Any:
    """The option that says which cases are measured.  default: in words."""
    return click.option(
        "--case", "cases", multiple=True, help=f"Measure this case; may be given several times. Default: {default}."
    )


@bench.command()
@click.option("--peer", default="torch,jax", show_default=True, help="Measure beside torch, jax, or both with a comma.")
@case_option("all")
@isa_option
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="The number of repetitions.")
@json_option
def step(peer: str, cases: tuple[str, ...], instruction_set: str, rounds: int, path: Path | None) -> None:
    """A whole training step on one core, beside PyTorch and JAX.

    Each side has a process of its own, all of which are held to the same instruction set; they take turns. "Of peak" is
    the part of our time that the step's products would take at the measured peak of fused multiply-adds, and "at most"
    what the ratios would be if we took no other time. For several cores see bench parallel.
    """
    from dist_relu.bench import step as benchmark
    from dist_relu.bench.cases import CASES

    peers = _peers(peer, benchmark.PEERS)
    chosen = [case for case in CASES if case.name in _chosen("--case", cases, [case.name for case in CASES])]

    def tell(found: benchmark.Comparison, is_complete: bool) -> None:
        about = {"instruction_sets": found.instruction_sets, "peak_gflops": found.peak_gflops}
        _show([step_table(found)], found.timings, path, is_complete, **about)

    with usage_errors(), StatusLine(Console(stderr=True)) as status:
        tell_last(benchmark.run(chosen or CASES, peers, rounds, instruction_set, status.phase), tell, path)


@bench.command()
@click.option("--peer", default="torch,jax,sklearn", show_default=True, help="Measure beside these, with commas.")
@case_option("the four mlp and cnn-mnist")
@click.option("--workers", type=click.IntRange(2), default=2, show_default=True, help="The number of workers.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="The number of repetitions.")
@click.option(
    "--starts",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Start each side so often for its memory and its first step; 0 leaves these out.",
)
@json_option
def parallel(peer: str, cases: tuple[str, ...], workers: int, rounds: int, starts: int, path: Path | None) -> None:
    """Training steps on several workers of this machine, beside PyTorch, JAX and scikit-learn on as many cores.

    PyTorch is two sides: "torch ddp" is DistributedDataParallel, by Gloo, in as many processes as there are workers,
    and "torch" one process with as many threads. JAX is one process, its step jitted; scikit-learn's MLPClassifier has
    dense networks alone. All train the same network on the same batches, by turns. Then each side is started once more
    with nobody beside it: until its first step is done, and for the most memory of all its processes together, a page
    that several of them have being counted once (their proportional set sizes).

    \b
    Example: dist-relu bench parallel --peer torch --case mlp-large --workers 4
    """
    from dist_relu.bench import parallel as benchmark
    from dist_relu.bench.cases import CASES

    peers = _peers(peer, benchmark.PEERS)
    names = _chosen("--case", cases, [case.name for case in CASES]) or benchmark.CASES
    chosen = [case for case in CASES if case.name in names]

    def tell(found: benchmark.Comparison, is_complete: bool) -> None:
        about = {"workers": workers, "cores": found.cores, "peak_gflops": found.peak_gflops}
        _show(parallel_tables(found), found.cases, path, is_complete, **about)

    with StatusLine(Console(stderr=True)) as status:
        tell_last(benchmark.run(chosen, peers, workers, rounds, starts, status.phase), tell, path)


def _peers(text: str, known: Sequence[str]) -> Sequence[str]:
    """The libraries that --peer names, all of which are installed."""
    peers = _chosen("--peer", [name for name in text.split(",") if name], known)
    for name in peers:
        check_peer_installed(f"--peer {name}", name)
    return peers


def _chosen(option: str, names: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    for name in names:
        if name not in known:
            raise click.UsageError(f"{option} {name}: expected one of {', '.join(known)}.")
    return names


@bench.command()
@click.option("--peer", type=choice(["torch"]), help="Measure beside this library.")
@click.option("--rounds", type=click.IntRange(1), default=15, show_default=True, help="The number of repetitions.")
@json_option
def kernels(peer: str | None, rounds: int, path: Path | None) -> None:
    """Every activation forward and backward on 16 MB, beside the machine's copy bandwidth."""
    if peer:
        check_peer_installed(f"--peer {peer}", peer)
    from dist_relu.bench import kernels as benchmark

    _tell_rows(benchmark.run(peer, rounds), kernels_table, path)
    if peer:
        click.echo("* allocates its result, for want of a variant that does not")


def _tell_rows(results: Iterable[Sequence[T]], table: Callable[[Sequence[T]], Table], path: Path | None) -> None:
    """Show the last of results, which are rows of a table, also where they end early; see `tell_last`."""
    tell_last(results, lambda rows, is_complete: _show([table(rows)], rows, path, is_complete), path)


def _show(tables: Sequence[Table], rows: Sequence[Any], path: Path | None, is_complete: bool, **about: Any) -> None:
    """Print tables, and write their rows to a file if one is asked for.  about: what else stands there."""
    for table in tables:
        show(table, is_complete=is_complete)
    if path:
        _write(path, rows, is_complete, **about)


def _write(path: Path, rows: Sequence[Any], is_complete: bool, **about: Any) -> None:
    facts = {"cpu": machine.cpu_name(), "blas": machine.blas_name(), "versions": machine.versions()}
    write_json(path, {**about, **facts, "is_complete": is_complete, "rows": [asdict(row) for row in rows]})
