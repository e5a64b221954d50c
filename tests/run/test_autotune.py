"""What is fastest is tried on steps of other runs; which way that is depends on the machine, and is not said here."""

from __future__ import annotations

import pytest

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.run.autotune import Choice
from dist_relu.run.race import Outcome, Runner
from tests.cases import long

DATA = dr.data.load("digits").train
BRIEF = 1e-3


def trainer_of(coordinator: dr.Coordinator, batch_size: int = 64, shards: int = 4) -> dr.Trainer:
    rule = optim.SGD(0.1, momentum=0.9)
    return coordinator.trainer(nn.mlp((16,), 10), DATA, rule, batch_size=batch_size, shards=shards, seed=1)


def test_a_run_goes_on_to_the_same_bits_on_the_workers_that_were_found(two_workers: dr.Coordinator) -> None:
    with dr.start(backend="serial") as alone, trainer_of(alone) as plain, trainer_of(two_workers) as tuned:
        plain.fit(steps=6)
        tuned.fit(steps=3)
        tuning = dr.autotune(tuned, seconds=BRIEF)
        assert two_workers.workers == tuning.workers in (1, 2)
        assert tuning.shards == 4
        tuned.fit(steps=3)
        assert tuned.state() == plain.state()
    two_workers.resize(2)


@pytest.mark.long
def test_every_way_has_been_timed(two_workers: dr.Coordinator) -> None:
    with trainer_of(two_workers) as trainer:
        tuning = dr.autotune(trainer, shards=True, seconds=BRIEF)
    two_workers.resize(2)
    assert [choice.question for choice in tuning.choices] == ["workers", "shards", "bucket_bytes"]
    of_workers, of_shards, of_buckets = tuning.choices
    assert of_workers.outcome
    assert of_shards.outcome
    assert [runner.value for runner in of_workers.outcome.runners] == [1, 2]
    assert [runner.value for runner in of_shards.outcome.runners] == [tuning.workers * parts for parts in (1, 2, 4)]
    assert all(len(runner.step_s) >= 1 <= runner.steps for runner in of_workers.outcome.runners)
    assert str(of_buckets) == "Messages of 256 KiB: on one node none are sent."
    assert str(tuning).splitlines() == [str(choice) for choice in tuning.choices]


@pytest.mark.long
def test_replicas_are_timed_with_their_averages(two_workers: dr.Coordinator) -> None:
    averaging = optim.LocalSGD(2, 7)
    replicas = two_workers.trainer(nn.mlp((16,), 10), DATA, optim.SGD(0.1), batch_size=64, averaging=averaging)
    with replicas:
        tuning = dr.autotune(replicas, seconds=BRIEF)
    two_workers.resize(2)
    assert tuning.choices[0].outcome
    for runner in tuning.choices[0].outcome.runners:
        assert runner.steps % (7 * len(runner.step_s)) == 0


def test_batches_are_cut_into_no_more_shards_than_they_have_samples(two_workers: dr.Coordinator) -> None:
    with trainer_of(two_workers, batch_size=3, shards=2) as trainer:
        tuning = dr.autotune(trainer, workers=False, shards=True, buckets=False, seconds=BRIEF)
    assert str(tuning) == "2 shards: a batch has no samples for twice as many."
    assert two_workers.workers == 2


def test_where_there_is_one_worker_there_are_no_more() -> None:
    with dr.start(backend="serial") as alone, trainer_of(alone) as trainer:
        assert str(dr.autotune(trainer, buckets=False)) == "1 worker: there are no more."


@pytest.mark.parametrize("error", [KeyboardInterrupt(), *long(ZeroDivisionError())], ids=repr)
def test_what_ends_it_leaves_run_and_workers_as_they_were(
    two_workers: dr.Coordinator, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def interrupted(self: dr.Trainer, **options: object) -> object:
        raise error

    with trainer_of(two_workers) as trainer:
        with monkeypatch.context() as patched:
            patched.setattr(dr.Trainer, "fit", interrupted)
            with pytest.raises(type(error)):
                dr.autotune(trainer)
        assert two_workers.workers == 2
        assert trainer.step == 0
        trainer.fit(steps=1)


def test_what_makes_no_search_is_refused(two_workers: dr.Coordinator) -> None:
    with pytest.raises(TypeError, match="trainer=3: expected an object of type Trainer"):
        dr.autotune(3)  # type: ignore[arg-type]
    with trainer_of(two_workers) as trainer, pytest.raises(ValueError, match="seconds=0: must be above 0"):
        dr.autotune(trainer, seconds=0)
    replicas = two_workers.trainer(
        nn.mlp((16,), 10), DATA, optim.SGD(0.1), batch_size=64, averaging=optim.LocalSGD(2, 4)
    )
    with replicas, pytest.raises(ValueError, match="shards=True: the run has replicas or a compression"):
        dr.autotune(replicas, shards=True)
    with trainer_of(two_workers) as trainer, pytest.raises(ValueError, match="bucket_bytes=10: must be at least 65536"):
        trainer.bucket_bytes = 10


def test_the_evidence_is_told_in_a_line() -> None:
    runners = [
        Runner(value=1, steps=200, step_s=[1.41e-3, 1.4e-3, 1.42e-3]),
        Runner(value=2, steps=1200, step_s=[0.93e-3, 0.91e-3, 0.92e-3, 0.9e-3]),
        Runner(value=3, steps=1100, step_s=[0.93e-3, 0.94e-3, 0.92e-3, 0.95e-3]),
    ]
    outcome = Outcome(value=2, left=[2, 3], runners=runners, seconds=1.23)
    assert str(Choice(question="workers", value=2, outcome=outcome)) == (
        "2 workers: 0.915 ms a step; 1 took 1.41, 3 took 0.935 (no clear difference) (2,500 steps in 4 rounds, 1.2 s)."
    )
    sizes = [Runner(value=value << 10, steps=10, step_s=[value / 1e3]) for value in (64, 256)]
    outcome = Outcome(value=64 << 10, left=[64 << 10], runners=sizes, seconds=2.0)
    assert str(Choice(question="bucket_bytes", value=64 << 10, outcome=outcome)) == (
        "Messages of 64 KiB: 64 ms a step; 256 KiB took 256 (20 steps in 1 round, 2.0 s)."
    )
