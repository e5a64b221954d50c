"""What one worker of many does in a step, measured on one core: the shards that it has, whatever the others do.

With so many shards one worker does exactly the arithmetic of many, so nothing of a worker has to be modelled. Where
workers run beside it, on the other cores of a node or on the same ones, they take something of its caches and memory:
that is measured by as many of it at once.
"""

from __future__ import annotations

import copy
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from dist_relu.coordinator import Coordinator, start
from dist_relu.core.checks import check_int
from dist_relu.data import Dataset
from dist_relu.errors import TrainingWarning
from dist_relu.nn import Sequential
from dist_relu.optim import SGD, Optimizer
from dist_relu.runtime.backends import SerialBackend
from dist_relu.runtime.world import World
from dist_relu.scaling import machine
from dist_relu.scaling.cost import Part
from dist_relu.scaling.folder import PROFILES_FILE, add_line, begin, measured, read_lines
from dist_relu.scaling.grid import Point, check_batch, check_models, own_share
from dist_relu.scaling.lone import LoneBackend, Sent
from dist_relu.scaling.machine import SHORTEST_S, Clock, Company, company, read_clock
from dist_relu.scaling.measurement import Work, whole_batches

SCHEMA = 1
"""The version of its lines, see profile.schema.json."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one worker has of a model's steps.

    nodes: 1, where it does without an exchange, or 2.  rows: its samples in a step.  shards: in so many parts.
    at_once: so many such workers run on this machine, each by itself.
    """

    model: str
    nodes: int
    rows: int
    shards: int
    at_once: int = 1


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How a worker's step goes, measured once.

    repetition: the round.  began: the first timed step, in s since 1970.
    step_seconds: of every timed step, where all messages come at once; of several workers at once what a step takes of
    a core, one mean for each.
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

    @property
    def num_steps(self) -> int | None:
        """How many steps were timed; of several workers at once nobody knows."""
        return len(self.step_seconds) if self.share.at_once == 1 else None

    def line(self) -> str:
        """As a line of JSON."""
        return json.dumps({"schema": SCHEMA, **asdict(self)})

    @classmethod
    def of_json(cls, content: Any) -> Self:
        """Make it of what a line stands for.  Raises ValueError, which says what is not as it should be."""
        found = measured(cls, content, SCHEMA)
        if found.num_steps is None and len(found.step_seconds) != found.share.at_once:
            raise ValueError(f"step_seconds has {len(found.step_seconds)} times of {found.share.at_once} workers")
        return found


def shares(points: Sequence[Point], num_samples: int, at_once: Sequence[int] = ()) -> list[Share]:
    """List what is measured, so that workers of any number can be told from it.

    All shards of a point on one worker, then half of them and so on to one, then one with half the rows and so on.
    num_samples: of the data; a pretended job of two nodes needs twice the rows.  at_once: so many workers beside one
    another, each with what one of so many has.
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
        found.update(dict.fromkeys(_beside_others(point, at_once, num_samples)))
    return list(found)


def _beside_others(point: Point, at_once: Sequence[int], num_samples: int) -> Iterator[Share]:
    """List the shares of the worker that has most, of so many."""
    for workers in at_once:
        rows, shards = own_share(point, workers)
        for nodes in (1, 2):
            if nodes * rows <= num_samples:
                yield Share(model=point.model, nodes=nodes, rows=rows, shards=shards, at_once=workers)


def profile(share: Share, work: Work, repetition: int) -> Profile:
    """Measure what a worker does: here, or what several do at once, in processes of their own."""
    if share.at_once == 1:
        return _profile_here(share, work, repetition)[0]
    with start(share.at_once, backend="local") as coordinator:
        found = coordinator.run(_profile_beside_others, (share, work, repetition))
    return _together([_in_core_time(one, core_share) for one, core_share in found])


def _profile_beside_others(world: World, request: tuple[Share, Work, int]) -> tuple[Profile, float]:
    return _profile_here(*request, wait_for_others=world.barrier.wait)


def _profile_here(
    share: Share, work: Work, repetition: int, wait_for_others: Callable[[], object] = lambda: None
) -> tuple[Profile, float]:
    """Return what a worker does, and how much of a core it had meanwhile.

    wait_for_others: is called before timed steps, since some may warm up longer than all steps take.
    """
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
            wait_for_others()
            began = time.time()
            before = [read_clock()]
            if lone:
                lone.channel.sent.clear()
            seconds = trainer.fit(steps=work.steps).step_seconds
            core_share = _core_share(before[0], read_clock())
            sent = _by_message(lone.channel.sent, work.steps) if lone else []
            time.sleep(max(SHORTEST_S - (time.monotonic() - before[0].now_s), 0))
            after = [read_clock()]
            (node_bytes,) = coordinator.run(_held_bytes, None)[:1]
    found = Profile(
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
    return found, core_share


def _core_share(before: Clock, after: Clock) -> float:
    return min((after.own_s - before.own_s) / (after.now_s - before.now_s), 1.0)


def _in_core_time(one: Profile, core_share: float) -> Profile:
    """Return a profile in the time of a core, of which its worker had only a share.

    Some steps had all of it, some waited: their mean says what they took, and parts leave at the same share of it.
    """
    step_s = float(np.mean(one.step_seconds)) * core_share
    factor = step_s / float(np.median(one.step_seconds))
    return replace(
        one,
        step_seconds=[step_s],
        parts=[replace(part, ready_s=part.ready_s * factor) for part in one.parts],
        node_sum_s=one.node_sum_s * factor,
    )


def _together(found: Sequence[Profile]) -> Profile:
    """Join the profiles of workers that ran at once."""
    ready = np.mean([[part.ready_s for part in one.parts] for one in found], axis=0)
    return replace(
        found[0],
        step_seconds=[seconds for one in found for seconds in one.step_seconds],
        parts=[replace(part, ready_s=float(at)) for part, at in zip(found[0].parts, ready, strict=True)],
        node_sum_s=float(np.mean([one.node_sum_s for one in found])),
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
    at_once: Sequence[int] = (),
    on_measured: Callable[[Profile, int, int], object] | None = None,
) -> list[Profile]:
    """Measure what workers do in the series of these points, for forecasts; see `experiment` for the arguments.

    What the folder holds already of the same experiment is not measured again.
    at_once: of so many workers, what each does while all of them run on this machine.

    Raises TypeError and ValueError for arguments that make no sense, ValueError where the folder holds another
    experiment, and `PartitionError` where a batch has more samples than the data.
    """
    check_int("steps", steps, least=2)
    check_int("warm_up", warm_up)
    check_int("repetitions", repetitions, least=1)
    check_models(points, models)
    of_points = shares(points, len(data), at_once)
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
    return read_lines(folder / PROFILES_FILE, Profile.of_json, lambda one: one.num_steps)


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
