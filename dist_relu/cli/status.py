"""`dist-relu status`: the jobs that run on this machine, and what their workers do at the moment."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dist_relu.cli.common import check_writable
from dist_relu.cli.types import json_option
from dist_relu.core.files import write_json
from dist_relu.run.checkpoints import checkpoint_files
from dist_relu.runtime.backends.ray.jobs import jobs_in_cluster
from dist_relu.runtime.jobs import Job, running_jobs

_MOST_LETTERS = 200
"""How much of a command is shown; some are whole scripts."""


@click.command(epilog="\b\nExamples:\n  dist-relu status\n  dist-relu status --address 10.0.0.1:6379\n")
@click.option("--address", metavar="HOST:PORT", help="Show the jobs of the Ray cluster at this address, too.")
@json_option
def status(address: str | None, path: Path | None) -> None:
    """Show your jobs on this machine, and what their workers do at the moment.

    For each job: how far training is, how fast, and its last checkpoint; for each worker its step and what it does in
    it, and whether it waits for others. A worker that all others wait for is what to look at when a job hangs: job and
    log say where in Python it is when they have waited for half a minute.
    """
    check_writable("--json", path)
    in_cluster = jobs_in_cluster(address) if address else []
    jobs = running_jobs()
    console = Console(highlight=False)
    if not jobs:
        console.print("No jobs of yours run on this machine.")
    for job in jobs:
        _show(console, job)
    for each in in_cluster:
        workers = "worker" if each.actors == 1 else "workers"
        console.print(f"In the Ray cluster, run {each.run}: {each.actors} {workers}, in namespace {each.namespace}")
    if address and not in_cluster:
        console.print(f"No jobs run in the Ray cluster at {address}.")
    if path:
        told = [{**asdict(job), "checkpoint": _last_checkpoint(job)} for job in jobs]
        write_json(path, {"jobs": told, "in_cluster": [asdict(each) for each in in_cluster]})


def _show(console: Console, job: Job) -> None:
    command = " ".join(job.command.split())
    if len(command) > _MOST_LETTERS:
        command = f"{command[:_MOST_LETTERS]}..."
    console.print(f"Job {job.pid}: {command}", markup=False, soft_wrap=True)
    console.print(f"  in {job.folder}, for {_ago(job.started)}, {job.backend}", markup=False, soft_wrap=True)
    if words := _words(job):
        console.print(f"  {words}", markup=False, soft_wrap=True)
    for recovery in job.recoveries[-1:]:
        console.print(f"  recoveries: {len(job.recoveries)}, the last: {recovery}", markup=False, soft_wrap=True)
    table = Table("worker", "host", "pid", "step", "phase", "for", box=None, padding=(0, 2))
    for worker in job.workers:
        phase = "?" if worker.phase is None else f"{worker.phase}{', waits for others' if worker.waits else ''}"
        since = "" if worker.since_s is None else f"{worker.since_s:.1f} s"
        step = "" if worker.step is None else f"{worker.step:,}"
        table.add_row(str(worker.rank), worker.host, str(worker.pid), step, phase, since)
    console.print(table)


def _words(job: Job) -> str:
    """How far training is, in words."""
    words = []
    if progress := job.progress:
        accuracy = "" if progress["accuracy"] is None else f", accuracy {progress['accuracy']:.3f}"
        words.append(
            f"step {progress['step']:,} of {progress['num_steps']:,}, epoch {progress['epoch'] + 1}, "
            f"loss {progress['loss']:.4f}{accuracy}"
        )
    if job.steps_per_second is not None:
        words.append(f"{job.steps_per_second:.3g} steps/s")
    if last := _last_checkpoint(job):
        words.append(f"checkpoint of step {last['step']:,}, {last['age_s']:.0f} s old: {last['path']}")
    return "; ".join(words)


def _last_checkpoint(job: Job) -> dict[str, Any] | None:
    """The newest file among a job's checkpoints, its step and its age."""
    for step, path in reversed(checkpoint_files(job.checkpoints) if job.checkpoints else []):
        try:
            return {"step": step, "path": str(path), "age_s": time.time() - path.stat().st_mtime}
        except FileNotFoundError:
            continue  # it was the last of those that are kept
    return None


def _ago(moment: float) -> str:
    minutes, seconds = divmod(int(time.time() - moment), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
