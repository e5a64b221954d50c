"""What is made of marks: whose they are in time, who waits for whom, and a file that others read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.comm.clocks import ClockReading
from dist_relu.comm.marks import BETWEEN, EXCHANGE, GATHER, MESSAGE, SUM, UPDATE, WAIT, Marks
from dist_relu.engine.plan import StepOptions, StepPlan
from dist_relu.engine.tracing import LAYERS, WorkerTrace
from dist_relu.run.tracing.chrome import write_trace
from dist_relu.run.tracing.log import TraceLog
from dist_relu.run.tracing.phases import phases_of
from dist_relu.run.tracing.summary import Phases
from dist_relu.runtime.process_info import ProcessInfo

STEPS = 10
STEP_NS = 1_000_000


def marked(work_ns: int, end_ns: int, *, ahead_ns: int = 0, waits_abroad: bool = False) -> tuple[Any, list[int]]:
    """Marks of steps in which a worker works for so long, waits until `end_ns` of each, and has its sums then."""
    marks = Marks(1000)
    times: list[int] = []
    for step in range(STEPS):
        begin = 10**15 + step * STEP_NS + ahead_ns
        marks.begin_step()
        marks.enter(GATHER)
        marks.note_busy()
        marks.enter(SUM)
        marks.enter(EXCHANGE if waits_abroad else WAIT)
        marks.resume()
        marks.enter(UPDATE)
        marks.enter(BETWEEN)
        arrival = begin + work_ns
        times += [step * work_ns, begin, begin, (step + 1) * work_ns, arrival, arrival, begin + end_ns]
        times += [begin + end_ns, begin + end_ns + 1000]
    taken = marks.take()
    assert taken
    taken[0]["ns"] = times
    return taken[0], times


def phases_from(works_ns: Sequence[int], *, ahead_ns: Sequence[int], nodes: Sequence[range]) -> Phases:
    """What comes of a run in which workers worked for so long in each step; all go on when the last one is there."""
    log = log_of(STEPS)
    add_segment(log, works_ns, ahead_ns=ahead_ns, nodes=nodes)
    return phases_of(log)


def log_of(num_steps: int) -> TraceLog:
    model = nn.Sequential(nn.Dense(2)).build((3,))
    plan = StepPlan(
        loss=nn.CrossEntropy(), optimizer=optim.SGD(0.1), options=StepOptions(), batch_size=8, shards=4, seed=0
    )
    return TraceLog(model, plan, num_steps)


def add_segment(
    log: TraceLog,
    works_ns: Sequence[int],
    *,
    ahead_ns: Sequence[int],
    nodes: Sequence[range],
    first: int | None = None,
    slow: int | None = None,
    pids: Sequence[int] = (100, 101, 102),
) -> None:
    """slow: of the rank whose messages, and those to it, are under way for 8 us instead of 2."""
    first = STEPS * len(log.segments) if first is None else first
    log.begin_segment(first, first + STEPS, None)
    end = max(works_ns) + 2000
    workers = []
    for rank, (work, ahead) in enumerate(zip(works_ns, ahead_ns, strict=True)):
        abroad = len(nodes) > 1
        marks, _ = marked(work, end, ahead_ns=ahead, waits_abroad=abroad)
        others = [other for other in range(len(works_ns)) if other != rank]
        messages = [
            (10**15 + step * STEP_NS + ahead + at, is_sent, other, 0, 1000)
            for step in range(STEPS)
            for other in others
            for is_sent, at in ((1, work - 6000 * (slow in (rank, other))), (0, end))
            if abroad
        ]
        readings = [ClockReading(10**15, ahead, 500)] if abroad and rank else []
        workers.append(
            WorkerTrace(
                marks=marks,
                messages=np.array(sorted(messages), MESSAGE),
                detail=LAYERS,
                readings=readings,
                began_ns=0,
                ended_ns=0,
                cost_ns=3000.0,
            )
        )
    peers = [ProcessInfo(pids[rank], "abc"[rank], str(rank)) for rank in range(len(works_ns))]
    log.end_segment(workers, peers, nodes, 0)


def test_who_comes_last_is_waited_for() -> None:
    phases = phases_from([300_000, 700_000], ahead_ns=[0, 0], nodes=[range(2)])
    first, second = phases.workers
    assert first.waits_for == pytest.approx([0.0, STEPS * 400e-6])
    assert second.waits_for == [0.0, 0.0]
    assert second.critical > 10 * first.critical
    assert "Worker 0 waits 41% for worker 1." in str(phases)  # 4 ms of 9.7


def test_the_mean_is_told_of_which_phases_are_parts() -> None:
    phases = phases_from([300_000, 700_000], ahead_ns=[0, 0], nodes=[range(2)])
    of_worker = sum(phases.workers[0].phases.values())
    assert phases.mean_step_seconds == pytest.approx(of_worker / phases.num_steps, rel=1e-6)
    assert f"in the median, {phases.mean_step_seconds * 1e6:.3g} us in the mean, on 2 workers" in str(phases)


def test_workers_that_have_gone_are_told_of_too() -> None:
    log = log_of(3 * STEPS)
    for works_ns in ([300_000, 700_000], [300_000, 700_000], [300_000]):
        add_segment(log, works_ns, ahead_ns=[0, 0][: len(works_ns)], nodes=[range(len(works_ns))])
    phases = phases_of(log)  # the first segment does not count
    assert [(worker.rank, worker.pid) for worker in phases.workers] == [(0, 100), (1, 101)]
    assert phases.workers[0].waits_for == pytest.approx([0.0, STEPS * 400e-6])
    assert "on 2 workers" in str(phases)
    assert "for worker 1. Worker 1 is late" in str(phases)


def test_steps_that_had_too_many_marks_are_left_out() -> None:
    log = log_of(4 * STEPS)
    add_segment(log, [300_000], ahead_ns=[0], nodes=[range(1)])
    add_segment(log, [300_000], ahead_ns=[0], nodes=[range(1)])
    assert str(phases_of(log)).startswith("Steps 10 to 19 took")
    log.begin_segment(20, 30, None)
    lost = WorkerTrace(
        marks=None, messages=np.empty(0), detail=LAYERS, readings=[], began_ns=0, ended_ns=0, cost_ns=0.0
    )
    log.end_segment([lost], [ProcessInfo(100, "a", "0")], [range(1)], 0)
    add_segment(log, [300_000], ahead_ns=[0], nodes=[range(1)], first=30)
    assert str(phases_of(log)).startswith("20 of steps 10 to 39 took")


def test_it_is_told_why_a_worker_is_late() -> None:
    phases = phases_from([300_000, 700_000], ahead_ns=[0, 0], nodes=[range(2)])
    lateness = phases.workers[1].lateness
    assert lateness
    assert lateness.slower == pytest.approx(STEPS * 400e-6)
    assert (lateness.off_core, lateness.more_samples) == (0, 0)
    assert "Worker 1 is late: its core takes longer for the same work" in str(phases)


def test_nodes_whose_clocks_differ_are_brought_to_one() -> None:
    phases = phases_from([300_000, 700_000], ahead_ns=[0, 10**12], nodes=[range(1), range(1, 2)])
    first, second = phases.workers
    assert first.waits_for == pytest.approx([0.0, STEPS * 400e-6], abs=1e-8)
    assert second.waits_for == [0.0, 0.0]
    assert first.network == pytest.approx(STEPS * 2e-6, abs=1e-8)
    assert "right to 0.5 us" in str(phases)


def test_messages_that_are_waited_for_are_not_hidden() -> None:
    phases = phases_from([700_000, 700_000], ahead_ns=[0, 0], nodes=[range(1), range(1, 2)])
    assert phases.hidden == pytest.approx(0, abs=1e-3)


def test_a_node_whose_messages_take_long_is_named_also_when_it_has_gone() -> None:
    log = log_of(3 * STEPS)
    apart, works_ns = [range(1), range(1, 2), range(2, 3)], [700_000] * 3
    add_segment(log, works_ns, ahead_ns=[0] * 3, nodes=apart)
    add_segment(log, works_ns, ahead_ns=[0] * 3, nodes=apart, slow=2)
    words = "Messages of node 2 (c) take 4.0 times as long as those of others."
    assert words in str(phases_of(log))
    add_segment(log, works_ns, ahead_ns=[0] * 3, nodes=[range(1), range(1, 3)])
    assert words in str(phases_of(log))


def test_nodes_whose_messages_take_about_as_long_are_not_named() -> None:
    phases = phases_from([700_000] * 3, ahead_ns=[0] * 3, nodes=[range(1), range(1, 2), range(2, 3)])
    assert phases.slow_node is None


def test_a_worker_in_whose_place_another_has_come_has_the_names_of_both(tmp_path: Path) -> None:
    log = log_of(2 * STEPS)
    for pids in ([100, 101], [100, 207]):
        add_segment(log, [300_000, 700_000], ahead_ns=[0, 0], nodes=[range(2)], pids=pids)
    write_trace(tmp_path / "trace.json", log)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
    assert names == ["worker 0 (pid 100)", "worker 1 (pid 101, then 207)"]


def test_no_step_is_lost_when_fewer_workers_have_more_to_mark(two_workers: dr.Coordinator) -> None:
    trace = dr.Trace()
    x = np.random.default_rng(0).standard_normal((200, 5)).astype(np.float32)
    model, labels = nn.mlp([4], 2), (x[:, 0] > 0).astype(int)
    with two_workers.trainer(model, (x, labels), optim.SGD(0.1), batch_size=40, shards=8, trace=trace) as trainer:
        trainer.fit(steps=40)
        two_workers.resize(1)
        trainer.fit(steps=40)
    two_workers.resize(2)
    assert np.unique(trace.table()["step"]).tolist() == list(range(80))


@pytest.fixture(scope="module")
def traced(two_workers: dr.Coordinator) -> dr.Trace:
    trace = dr.Trace(steps=30)
    x = np.random.default_rng(0).standard_normal((200, 5)).astype(np.float32)
    two_workers.fit(
        nn.mlp([4], 2), (x, (x[:, 0] > 0).astype(int)), optim.SGD(0.1), epochs=10, batch_size=40, trace=trace
    )
    return trace


@pytest.mark.long
def test_so_many_steps_are_traced_as_one_asks_for(traced: dr.Trace) -> None:
    assert traced.num_traced == 30
    assert traced.table()["step"].max() == 29


def test_the_file_keeps_to_chromes_trace_event_format(traced: dr.Trace, tmp_path: Path) -> None:
    traced.save(tmp_path / "trace.json")
    content = json.loads((tmp_path / "trace.json").read_text())
    events = content["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X"}
    names = {event["args"]["name"] for event in events if event["ph"] == "M"}
    assert "coordinator" in names
    assert any(name.startswith("worker 1 (pid ") for name in names)
    for event in events:
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "X":
            assert event["ts"] >= 0
            assert event["dur"] >= 0


def test_phases_lie_within_steps_that_follow_one_another(traced: dr.Trace, tmp_path: Path) -> None:
    traced.save(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    for worker in range(2):
        mine = [event for event in events if event["ph"] == "X" and event["pid"] == 1 and event["tid"] == worker]
        steps = {event["name"]: event for event in mine if event["cat"] == "step"}
        assert [*steps] == [f"step {number}" for number in range(30)]
        for event in mine:
            step = steps[f"step {event['args']['step']}"] if event["cat"] != "step" else event
            assert step["ts"] - 1e-6 <= event["ts"]
            assert event["ts"] + event["dur"] <= step["ts"] + step["dur"] + 1e-6


def test_a_trace_belongs_to_one_run() -> None:
    trace = dr.Trace()
    with pytest.raises(ValueError, match="No step was traced"):
        trace.phases()
    x, y = np.ones((4, 3), np.float32), np.array([0, 1, 0, 1])
    with dr.start(1, backend="serial") as coordinator:
        coordinator.trainer(nn.mlp([2], 2), (x, y), optim.SGD(0.1), batch_size=4, trace=trace).close()
        with pytest.raises(ValueError, match="belongs to another run"):
            coordinator.trainer(nn.mlp([2], 2), (x, y), optim.SGD(0.1), batch_size=4, trace=trace)
