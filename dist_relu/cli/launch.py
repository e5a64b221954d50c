"""`dist-relu launch`: an MPI job that is started again when a rank of it was lost."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from dist_relu.cli.common import usage_errors
from dist_relu.cli.parsing import parse_words
from dist_relu.cli.train import train
from dist_relu.cli.types import DURATION, choice
from dist_relu.core.machine import num_cores
from dist_relu.launch.hosts import parse_hosts, read_hosts
from dist_relu.launch.mpirun import Mpirun
from dist_relu.launch.restarts import Launcher, Program
from dist_relu.runtime.backends import BACKENDS, is_under_mpirun
from dist_relu.runtime.backends.mpi.backend import mpirun_path

_EXAMPLES = """
\b
Examples:
  dist-relu launch -n 4 -- train --epochs 50 --checkpoint runs/b --every 60s
  dist-relu launch --host a:2,b:2 --restarts 10 -- train --checkpoint runs/b
  dist-relu launch -n 4 -- script.py ARGUMENTS
"""

_log = logging.getLogger(__name__)


@click.command(epilog=_EXAMPLES, context_settings={"allow_interspersed_args": False})
@click.option(
    "--backend",
    type=choice(BACKENDS),
    default="mpi",
    show_default=True,
    help="Only mpi; on others a run survives the loss of workers without a restart.",
)
@click.option(
    "-n",
    "--workers",
    "ranks",
    type=click.IntRange(1),
    help="How many ranks. Default: as many as the hosts may have, or one for each core.",
)
@click.option("--host", "host_list", metavar="HOST:RANKS,...", help="The hosts, and how many ranks each may have.")
@click.option(
    "--hosts",
    "host_file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The same from FILE, a host in each line: a:2, or a slots=2.",
)
@click.option(
    "--restarts",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    help="How often to start it again without a newer checkpoint in between.",
)
@click.option(
    "--start-timeout",
    type=DURATION,
    metavar="TIME",
    default="120s",
    show_default=True,
    help="How long it may take until all ranks have come through dist_relu.start().",
)
@click.option(
    "--mpirun", "mpirun_command", metavar="COMMAND", help='Which mpirun, with options: "mpirun --oversubscribe".'
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
def launch(
    backend: str,
    ranks: int | None,
    host_list: str | None,
    host_file: Path | None,
    restarts: int,
    start_timeout: float,
    mpirun_command: str | None,
    command: Sequence[str],
) -> None:
    """Run a command on the ranks of an MPI job, and start it again when a rank was lost.

    COMMAND is one of dist-relu, such as train, or a Python script that calls dist_relu.start(). When a rank is killed,
    stands still or is cut off, the job ends within seconds. One line says who it was, and the job starts again: train
    with --checkpoint from its last checkpoint, to the same bits; a script goes on by itself, from
    dist_relu.newest_state(). A host that can't be reached is left out. What ends by itself or by an error of its own
    is not started again. Ctrl-C, SIGTERM and SIGHUP are passed on, and end it. The exit code is that of the last job.
    """
    if backend != "mpi":
        raise click.UsageError(
            f"--backend {backend}: only MPI jobs are started again. On {backend} leave `launch` out: "
            f"dist-relu {' '.join(command[:1])} --backend {backend}."
        )
    if is_under_mpirun():
        raise click.UsageError("launch starts mpirun itself. Leave out the mpirun before it.")
    if host_list is not None and host_file is not None:
        raise click.UsageError("--host and --hosts both name hosts. Pass one of them.")
    with usage_errors():
        hosts = parse_hosts(host_list) if host_list is not None else read_hosts(host_file) if host_file else []
        mpirun = Mpirun.of(parse_words("--mpirun", mpirun_command or "") or [mpirun_path()])
    slots = sum(host.slots for host in hosts)
    if hosts and ranks and ranks > slots:
        raise click.UsageError(f"-n {ranks}, but the hosts may have {slots} ranks. Name more, or more ranks on each.")
    program = _program_of(command)
    if restarts and program.checkpoints is None and not _is_script(command[0]):
        _log.warning("warning: without --checkpoint the command begins anew when a rank was lost.")
    launcher = Launcher(
        mpirun=mpirun,
        program=program,
        ranks=ranks or slots or num_cores(),
        hosts=hosts,
        max_restarts=restarts,
        start_timeout_s=start_timeout,
        tell=_tell,
    )
    sys.exit(launcher.run())


def _program_of(command: Sequence[str]) -> Program:
    """What the ranks run.  Raises click.UsageError where it is nothing that they could run."""
    name, *arguments = command
    if _is_script(name):
        if not Path(name).is_file():
            raise click.UsageError(f"There is no script {name}.")
        run = [sys.executable, *command]
        return Program(first=run, again=run, checkpoints=None)
    commands = click.get_current_context().find_root().command
    assert isinstance(commands, click.Group)
    if name not in commands.commands or name == "launch":
        raise click.UsageError(f"{name!r} is neither a command of dist-relu nor a Python script (a file *.py).")
    run = [sys.executable, "-m", "dist_relu", *command]
    if name != "train":
        return Program(first=run, again=run, checkpoints=None)
    params = train.make_context("train", list(arguments)).params  # which refuses what it does not know
    if params["backend"] not in ("auto", "mpi"):
        raise click.UsageError(f"--backend {params['backend']} of train: launch starts MPI ranks. Leave it out.")
    folder: Path | None = params["checkpoint"]
    goes_on = folder is not None and not params["resume"]
    return Program(first=run, again=[*run, "--resume"] if goes_on else run, checkpoints=folder)


def _tell(what: str) -> None:
    with suppress(OSError):  # a job goes on that nobody listens to
        click.echo(f"dist-relu: {what}", err=True)


def _is_script(name: str) -> bool:
    return name.endswith(".py")
