"""What `dist-relu train` finds out by trying: `--workers auto`, `--shards auto`, `--bucket auto`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Self, final

import click
from rich.console import Console

from dist_relu.cli.progress import StatusLine, counted, tell
from dist_relu.cli.training import Task, TrainingOptions
from dist_relu.cli.types import AUTO
from dist_relu.comm.buckets import BUCKET_BYTES
from dist_relu.coordinator import Coordinator
from dist_relu.errors import TrainingWarning
from dist_relu.run.autotune import Tuning, autotune


@final
@dataclass(frozen=True, kw_only=True)
class Wanted:
    """These are to be found out.

    keeps_shards: so were shards, but those of the run that goes on stay.  bucket_bytes: how large messages between
    nodes are until they are found.
    """

    workers: bool
    shards: bool
    buckets: bool
    keeps_shards: bool
    bucket_bytes: int

    @classmethod
    def of(cls, context: click.Context, options: TrainingOptions) -> Self:
        """Shards that are given, or that a run has already, stay; where workers are to be found, others are free.

        Raises click.UsageError where shards are free that mean more than speed.
        """
        bucket = context.params["bucket"]
        workers, shards = (context.params[name] == AUTO for name in ("workers", "shards"))
        are_free = options.shards is None and (shards or (workers and options.replicas is None))
        for option, value in (("--compress", options.compress), ("--replicas", options.replicas)):
            if are_free and value is not None:
                raise click.UsageError(
                    f"{option} is about groups of shards, so their number is no matter of speed alone. Pass --shards N."
                )
        return cls(
            workers=workers,
            shards=are_free,
            buckets=bucket == AUTO,
            keeps_shards=options.shards is not None and shards,
            bucket_bytes=BUCKET_BYTES if bucket in (None, AUTO) else bucket,
        )

    def tuned(
        self, task: Task, coordinator: Coordinator, status: StatusLine, console: Console
    ) -> tuple[Task, Tuning | None]:
        """Find them out, and tell; returns the task with the shards that were found.

        There are as many workers then as were the fastest. Raises `PartitionError`.
        """
        if self.keeps_shards and task.options.shards:
            tell(console, f"{counted(task.options.shards, 'shard')}: the run that goes on has so many.")
        if not (self.workers or self.shards or self.buckets):
            return task, None
        status.phase("Trying what is fastest")
        options, batch_size = task.options, task.options.batch_size
        shards = options.shards or options.replicas or batch_size
        most = min(shards, options.replicas or shards, batch_size, len(task.data.train))
        if self.workers and coordinator.can_resize and coordinator.workers > most:
            coordinator.resize(most)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TrainingWarning)  # the run itself will tell
            with task.for_workers(coordinator.workers).trainer(coordinator) as trainer:
                trainer.bucket_bytes = self.bucket_bytes
                tuning = autotune(trainer, workers=self.workers, shards=self.shards, buckets=self.buckets)
        for choice in tuning.choices:
            tell(console, str(choice))
        return replace(task, options=replace(task.options, shards=tuning.shards)), tuning
