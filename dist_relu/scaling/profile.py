"""What one worker of many does in a step, measured on one core: the shards that it has, whatever the others do.

With so many shards one worker does exactly the arithmetic of many, so nothing of a worker has to be modelled.
"""

from __future__ import annotations

import copy
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from dist_relu.coordinator import Coordinator
from dist_relu.core.checks import check_int
from dist_relu.data import Dataset
from dist_relu.errors import TrainingWarning
from dist_relu.nn import Sequential
from dist_relu.optim import SGD, Optimizer
from dist_relu.runtime.backends import SerialBackend
from dist_relu.runtime.world import World
from dist_relu.scaling import machine
from dist_relu.scaling.cost import Part
from dist_relu.scaling.folder import PROFILES_FILE, add_line, begin, read_lines
from dist_relu.scaling.grid import Point, check_batch
from dist_relu.scaling.lone import LoneBackend, Sent
from dist_relu.scaling.machine import SHORTEST_S, Company, company, read_clock
from dist_relu.scaling.measurement import Work, whole_batches

SCHEMA = 1
"""The version of its lines, see profile.schema.json."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one worker has of a model's steps.

    nodes: 1, where it does without an exchange, or 2.  rows: its samples in a step.  shards: in so many parts.
    """

    model: str
    nodes: int
    rows: int
    shards: int


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How a worker's step goes, measured once.

    repetition: the round.  began: the first timed step, in s since 1970.
    step_seconds: of every timed step, where all messages come at once.
    parts: of the gradient as they leave, with medians over the steps.  node_sum_s: so much of that is the sum of those
    that leave when all shards are through.  node_bytes: memory that a node with one such worker shares, data included.
    company: what else the machine did.
    """

    share: Share
    repetition: int
    began: float
    step_seconds: Sequence[float]
    parts: Sequence[Part]
    node_sum_s: float
    node_bytes: int
    company: Company

    def line(self) -> str:
        """As a line of JSON."""
        return json.dumps({"schema": SCHEMA, **asdict(self)})

    @classmethod
    def of_line(cls, line: str | bytes) -> Self:
        """Raises ValueError for what is no such line."""
        try:
            content = json.loads(line)
            if content.pop("schema") != SCHEMA:
                raise ValueError("another version of the schema")
            share, of_machine = Share(**content.pop("share")), Company(**content.pop("company"))
            parts = [Part(**part) for part in content.pop("parts")]
            return cls(share=share, parts=parts, company=of_machine, **content)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no profile: {error}") from None


def shares(points: Sequence[Point], num_samples: int) -> list[Share]:
    """List what is measured, so that workers of any number can be told from it.

    All shards of a point on one worker, then half of them and so on to one, then one with half the rows and so on.
    num_samples: of the data; a pretended job of two nodes needs twice the rows.
    Raises `PartitionError` where one worker has more rows than that.
    """
    found: dict[Share, None] = {}
    for point in points:
        workers = point.workers if point.regime == "weak" else 1
        rows, shards = point.batch_size // workers, point.shards // workers
        check_batch(rows, num_samples)
        has_whole_shards = True
        while rows:
            if has_whole_shards:
                found[Share(model=point.model, nodes=1, rows=rows, shards=shards)] = None
            has_whole_shards = shards > 1
            if 2 * rows <= num_samples:
                found[Share(model=point.model, nodes=2, rows=rows, shards=shards)] = None
            rows, shards = (rows // shards * (shards // 2), shards // 2) if shards > 1 else (rows // 2, 1)
    return list(found)


def profile(share: Share, work: Work, repetition: int) -> Profile:
    """Measure what a worker does, here."""
    model, batch_size = copy.deepcopy(work.model), share.rows * share.nodes
    lone = LoneBackend(share.nodes) if share.nodes > 1 else None
    with Coordinator(lone or SerialBackend()) as coordinator, warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)  # with the gradients of others, it would learn something
        with coordinator.trainer(
            model,
            whole_batches(work.data, batch_size),
            work.optimizer,
            batch_size=batch_size,
            shards=share.shards * share.nodes,
            seed=work.seed,
        ) as trainer:
            trainer.fit(steps=work.warm_up)
            began = time.time()
            before = [read_clock()]
            if lone:
                lone.channel.sent.clear()
            seconds = trainer.fit(steps=work.steps).step_seconds
            sent = _by_message(lone.channel.sent, work.steps) if lone else []
            time.sleep(max(SHORTEST_S - (time.monotonic() - before[0].now_s), 0))
            after = [read_clock()]
            (node_bytes,) = coordinator.run(_held_bytes, None)[:1]
    return Profile(
        share=share,
        repetition=repetition,
        began=began,
        step_seconds=seconds.tolist(),
        parts=[
            Part(ready_s=float(np.median([one.since_s for one in each])), size_bytes=each[0].size_bytes)
            for each in sent
        ],
        node_sum_s=_node_sum_s(sent),
        node_bytes=node_bytes,
        company=company(before, after),
    )


def profiles(
    models: Mapping[str, Sequential],
    data: Dataset,
    optimizer: Optimizer | None = None,
    *,
    points: Sequence[Point],
    folder: str | Path,
    steps: int = 100,
    warm_up: int = 10,
    repetitions: int = 5,
    seed: int = 0,
    on_measured: Callable[[Profile, int, int], object] | None = None,
) -> list[Profile]:
    """Measure what workers do in the series of these points, for forecasts; see `experiment` for the arguments.

    What the folder holds already of the same experiment is not measured again.

    Raises TypeError and ValueError for arguments that make no sense, ValueError where the folder holds another
    experiment, and `PartitionError` where a batch has more samples than the data.
    """
    check_int("steps", steps, least=2)
    check_int("warm_up", warm_up)
    check_int("repetitions", repetitions, least=1)
    of_points = shares(points, len(data))
    wanted = [(share, number) for number in range(repetitions) for share in of_points]
    folder = Path(folder)
    optimizer = optimizer or SGD(0.01, momentum=0.9)
    facts = machine.facts()
    del facts["cores"]  # it takes one of them, however many there are
    begin(folder, models, data, optimizer, {"steps": steps, "warm_up": warm_up, "seed": seed}, facts)
    found = list(read_profiles(folder))
    done = {(one.share, one.repetition) for one in found}
    num_done = len(done & set(wanted))
    for share, number in wanted:
        if (share, number) in done:
            continue
        work = Work(model=models[share.model], data=data, optimizer=optimizer, steps=steps, warm_up=warm_up, seed=seed)
        one = profile(share, work, number)
        add_line(folder / PROFILES_FILE, one.line())
        found.append(one)
        num_done += 1
        if on_measured:
            on_measured(one, num_done, len(wanted))
    return found


def read_profiles(folder: Path) -> Iterator[Profile]:
    """Read what was measured, see `read_lines`."""
    return read_lines(folder / PROFILES_FILE, Profile.of_line)


def _by_message(sent: Sequence[Sent], steps: int) -> list[list[Sent]]:
    """Gather the messages of all steps that are the same message; every step sends the same ones."""
    per_step = len(sent) // steps
    assert per_step * steps == len(sent)
    return [list(sent[number::per_step]) for number in range(per_step)]


def _node_sum_s(sent: Sequence[Sequence[Sent]]) -> float:
    """Estimate what the last parts take to be summed.

    It is not told when the first of them was begun with, but it takes about as long as each of the others.
    """
    times = [float(np.median([one.since_s for one in each])) for each in sent if each[0].is_after_pass]
    return (times[-1] - times[0]) * len(times) / (len(times) - 1) if len(times) > 1 else 0.0


def _held_bytes(world: World, request: Any) -> int:
    return sum(shared.array.nbytes for shared in world.node.held.values())
