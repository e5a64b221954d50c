"""Who verifies which shard, and who is said to be wrong."""

from __future__ import annotations

import pickle

import pytest

import dist_relu as dr
from dist_relu.engine.verification import Digest, check_digests, num_verified, verified_shard
from dist_relu.partition import bounds
from dist_relu.runtime.process_info import ProcessInfo

PEERS = [ProcessInfo(pid=100 + rank, host=f"Host{rank}", node="") for rank in range(4)]


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_all_shards_are_verified_by_all_others_in_the_course_of_time(workers: int) -> None:
    every, shards = 7, 6
    seen: dict[int, set[int]] = {}
    for step in range(every * shards * max(workers - 1, 1)):
        verified = verified_shard(step, every, shards, workers)
        assert (verified is not None) == (num_verified(step, step + 1, every) == 1) == (step % every == every - 1)
        if verified:
            shard, ranks = verified
            assert len(ranks) == min(2, max(workers - 1, 1))
            seen.setdefault(shard, set()).update(ranks)
    for rank, (first, stop) in enumerate(bounds(shards, workers)):
        for shard in range(first, stop):
            assert seen[shard] == (set(range(workers)) - {rank} or {0})


def digests(*of_workers: bytes | None) -> list[list[Digest]]:
    return [[] if digest is None else [Digest(9, 2, b"same"), Digest(19, 3, digest)] for digest in of_workers]


def test_passes_that_agree_are_fine() -> None:
    check_digests(digests(b"a", None, b"a", b"a"), PEERS)
    check_digests([[Digest(9, 2, b"a"), Digest(9, 2, b"a")]], PEERS)
    check_digests([[]], PEERS)


@pytest.mark.parametrize(
    ("of_workers", "wrong"),
    [
        (digests(b"a", None, b"b", b"a"), [2]),
        (digests(b"b", b"a", b"a"), [0]),
        (digests(b"a", b"b"), [0, 1]),
        (digests(b"a", b"b", None, b"c"), [0, 1, 3]),
        ([[Digest(19, 3, b"a"), Digest(19, 3, b"b")]], [0]),
    ],
)
def test_whoever_disagrees_with_the_majority_is_named(of_workers: list[list[Digest]], wrong: list[int]) -> None:
    with pytest.raises(dr.FaultyWorker, match="in step 19") as caught:
        check_digests(of_workers, PEERS)
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.step, error.shard, error.workers) == (19, 3, wrong)
    assert error.hosts == [f"Host{rank}" for rank in wrong]
    names = " or ".join(f"worker {rank} (host Host{rank}, pid {100 + rank})" for rank in wrong)
    assert str(error).startswith(f"W{names[1:]} computes wrong: passes over shard 3 in step 19 ")
