"""`dist-relu status`, asked by a job about itself: others may run on this machine as well."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import dist_relu as dr
from dist_relu.cli.main import main
from dist_relu.runtime.jobs import Job, running_jobs
from tests.ray_clusters import RayCluster


def mine(pids: Sequence[int]) -> list[Job]:
    """The job with these workers."""
    return [job for job in running_jobs() if [worker.pid for worker in job.workers] == list(pids)]


def pid_of(world: dr.World, request: object) -> int:
    return os.getpid()


def report_and_hang(world: dr.World, path: Path) -> None:
    """Let worker 1 hang until a file appears, when worker 0 has said that it will wait."""
    world.barrier.wait()
    if world.rank == 0:
        world.report("waiting")
    else:
        while not path.exists():
            time.sleep(0.01)
    world.barrier.wait()


def test_what_each_worker_does_is_shown_while_one_is_waited_for(
    two_workers: dr.Coordinator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, told = tmp_path / "go on", tmp_path / "status.json"
    shown: list[str] = []
    pids = two_workers.run(pid_of, None)

    def look(_: Any) -> None:
        try:
            while not any(worker.waits for job in mine(pids) for worker in job.workers):
                time.sleep(0.01)
            main(["status", "--json", str(told)])
            shown.append(capsys.readouterr().out)
        finally:
            path.touch()

    two_workers.run(report_and_hang, path, on_event=look)
    jobs = json.loads(told.read_text())["jobs"]
    (job,) = (job for job in jobs if [worker["pid"] for worker in job["workers"]] == pids)
    assert job["pid"] == os.getpid()
    assert job["backend"] == "local"
    assert job["command"]
    assert [worker["phase"] for worker in job["workers"]] == ["call", "call"]
    assert [worker["waits"] for worker in job["workers"]] == [True, False]
    assert f"Job {os.getpid()}: " in shown[0]
    assert "call, waits for others" in shown[0]


def test_progress_and_last_checkpoint_of_a_training_are_shown(
    two_workers: dr.Coordinator, digits: dr.data.Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = dr.nn.Sequential(dr.nn.Dense(10))
    checkpoint = dr.Checkpoint(tmp_path / "states")
    two_workers.fit(model, digits.train, dr.optim.SGD(0.01), epochs=2, batch_size=100, callbacks=[checkpoint])
    main(["status"])
    out = capsys.readouterr().out
    assert "step 30 of 30, epoch 2, loss " in out
    assert "checkpoint of step 30, " in out
    assert str(tmp_path / "states" / "step-000000030.safetensors") in out


def test_the_speed_of_steps_is_known(two_workers: dr.Coordinator, digits: dr.data.Split) -> None:
    seen: list[Job] = []
    pids = two_workers.run(pid_of, None)
    model = dr.nn.Sequential(dr.nn.Dense(10))

    def look(_: object) -> None:
        seen.extend(mine(pids))
        if seen[-1].steps_per_second is not None:
            raise StopIteration

    two_workers.fit(model, digits.train, dr.optim.SGD(0.01), epochs=100_000, batch_size=100, on_progress=look)
    rate = seen[-1].steps_per_second
    assert rate is not None
    assert rate > 0


def test_a_job_is_one_whatever_it_has_forked(two_workers: dr.Coordinator) -> None:
    pids = two_workers.run(pid_of, None)
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    try:
        assert [job.pid for job in mine(pids)] == [os.getpid()]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_job_that_has_ended_is_gone() -> None:
    with dr.start(backend="serial") as coordinator:
        pids = coordinator.run(pid_of, None)
        assert mine(pids)
    assert not mine(pids)


@pytest.mark.long
def test_the_jobs_of_a_ray_cluster_are_shown(
    ray_cluster: RayCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tmp_path / "status.json"
    arguments = ["status", "--address", ray_cluster.address, "--json", str(told)]
    with dr.start(2, backend="ray", address=ray_cluster.address) as coordinator:
        coordinator.run(pid_of, None)
        main(arguments)
        assert ": 2 workers, in namespace " in capsys.readouterr().out
        assert [job["actors"] for job in json.loads(told.read_text())["in_cluster"]] == [2]
    main(arguments)
    assert f"No jobs run in the Ray cluster at {ray_cluster.address}." in capsys.readouterr().out


def test_no_jobs_is_no_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("dist_relu.cli.status.running_jobs", list)
    main(["status"])
    assert capsys.readouterr().out == "No jobs of yours run on this machine.\n"
