"""The plan of a reduction is data: who adds what, where it lies, and what travels."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pytest

from dist_relu import nn
from dist_relu.comm.buckets import assign_buckets
from dist_relu.nn.passes import measure
from dist_relu.partition import Halving, Owner, SummationTree, Way, bounds
from dist_relu.reduction.buckets import HEAD
from dist_relu.reduction.pieces import TAIL
from dist_relu.reduction.plan import ReductionPlan

MODELS = {
    "large mlp": lambda: nn.mlp((1024, 1024), 10),
    "small mlp": lambda: nn.mlp((16,), 10),
    "cnn": lambda: nn.cnn((8, 8, 1), 10),
    "resnet": lambda: nn.resnet(8, (8, 8, 1), 10),
    "rnn": lambda: nn.rnn(200, 10, (8, 8)),
}
ONE_NODE = {"1": [range(1)], "3": [range(3)]}
SEVERAL = {
    "1+1": [range(1), range(1, 2)],
    "2+1+1": [range(2), range(2, 3), range(3, 4)],
    "3+2": [range(3), range(3, 5)],
}
NODES = {**ONE_NODE, **SEVERAL}

of_every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
on_all_nodes = pytest.mark.parametrize("nodes", NODES.values(), ids=NODES)
on_several_nodes = pytest.mark.parametrize("nodes", SEVERAL.values(), ids=SEVERAL)

Make = Callable[[], nn.Sequential]


def plan_of(make: Make, nodes: list[range], *, shards: int = 7, **options: Any) -> ReductionPlan:
    model = make().build((64,)).initialize()
    layout = measure(model, nn.CrossEntropy(), np.zeros(1, np.int64))
    return ReductionPlan.of(
        model.params,
        layout.products,
        nodes=nodes,
        shards=shards,
        batch_size=64,
        num_vectors=2,
        itemsize=4,
        **options,
    )


@of_every_model
@on_all_nodes
def test_a_plan_is_data(make: Make, nodes: list[range]) -> None:
    plan = plan_of(make, nodes)
    assert pickle.loads(pickle.dumps(plan)) == plan == plan_of(make, nodes)


@of_every_model
@pytest.mark.parametrize("by_param", [False, True])
def test_pieces_hold_the_whole_vector_once_whoever_works(make: Make, by_param: bool) -> None:
    plan, *others = (plan_of(make, nodes, by_param=by_param) for nodes in NODES.values())
    stops = [piece.stop for piece in plan.pieces]
    assert [piece.start for piece in plan.pieces] == [0, *stops[:-1]]
    assert stops[-1] == plan.num_params
    assert all(other.pieces == plan.pieces for other in others)


@of_every_model
def test_pieces_end_with_parameters_where_norms_of_each_are_measured(make: Make) -> None:
    params = make().build((64,)).params
    stops = np.cumsum([prod(param.shape) for param in params])
    for piece in plan_of(make, [range(2)], by_param=True).pieces:
        assert stops[piece.param] - prod(params[piece.param].shape) <= piece.start < piece.stop <= stops[piece.param]


@of_every_model
@on_all_nodes
def test_every_node_updates_every_piece_once(make: Make, nodes: list[range]) -> None:
    plan = plan_of(make, nodes)
    for ranks in nodes:
        updated = [number for rank in ranks for chunk in plan.chunks[rank] for number in chunk]
        assert sorted(updated) == list(range(len(plan.pieces)))


@pytest.mark.parametrize("shards", [5, 7, 8, 64])
@on_all_nodes
def test_slots_have_a_row_for_every_subtree_that_a_worker_sums_alone(nodes: list[range], shards: int) -> None:
    plan, tree = plan_of(MODELS["small mlp"], nodes, shards=shards), SummationTree(shards)
    for rank, subtrees in enumerate(plan.subtrees):
        summed = [shard for subtree in subtrees for shard in tree.shards_of(subtree)]
        assert summed == list(plan.shards_of(rank))
    assert [shard for rank in range(plan.workers) for shard in plan.shards_of(rank)] == list(range(shards))
    assert plan.slots_shape == (sum(map(len, plan.subtrees)), plan.num_columns + TAIL)


@of_every_model
def test_slots_have_room_for_what_is_no_product(make: Make) -> None:
    plan = plan_of(make, [range(2)])
    in_slots = [piece for piece in plan.pieces if piece.rows is None]
    assert sum(piece.stop - piece.start for piece in in_slots) == plan.num_columns
    columns = [piece.column for piece in in_slots]
    assert columns == sorted(set(columns))


@of_every_model
@pytest.mark.parametrize("nodes", ONE_NODE.values(), ids=ONE_NODE)
def test_on_one_node_nothing_travels_and_there_are_no_totals(make: Make, nodes: list[range]) -> None:
    plan = plan_of(make, nodes)
    assert (plan.stages, plan.totals_shape) == ([], (0,))


@of_every_model
def test_vectors_of_both_generations_begin_with_a_cache_line(make: Make) -> None:
    plan = plan_of(make, [range(1)])
    generations, vectors, length = plan.generations_shape
    assert (generations, vectors) == (2, 2)
    assert 0 <= length - plan.num_params < 16
    assert length * 4 % 64 == 0


@of_every_model
@on_several_nodes
def test_buckets_hold_everything_once(make: Make, nodes: list[range]) -> None:
    plan = plan_of(make, nodes)
    loads = [load for stage in plan.stages for load in stage.loads]
    assert [i for load in reversed(loads) for chunk in load.chunks for i in chunk] == list(range(len(plan.pieces)))
    stops = [load.bucket.stop for load in reversed(loads)]
    assert [load.bucket.start for load in reversed(loads)] == [HEAD - TAIL, *stops[:-1]]
    assert stops[-1:] == list(plan.totals_shape)
    assert all(rank in ranks for load in loads for rank, ranks in zip(load.bucket.ranks, nodes, strict=True))


@of_every_model
@on_several_nodes
def test_stages_leave_from_the_last_parameter_to_the_first(make: Make, nodes: list[range]) -> None:
    plan = plan_of(make, nodes)
    firsts = [stage.first_param for stage in plan.stages]
    assert firsts == sorted(set(firsts), reverse=True)
    assert firsts[-1] == 0
    columns = [stage.columns for stage in reversed(plan.stages)]
    assert [0, *(stop for _, stop in columns)] == [*(start for start, _ in columns), plan.num_columns]


def test_nodes_own_about_the_same() -> None:
    plan = plan_of(MODELS["large mlp"], SEVERAL["2+1+1"])
    owned = Counter[Way]()
    for stage in plan.stages:
        for load in stage.loads:
            owned[load.bucket.way] += load.bucket.stop - load.bucket.start
    assert set(owned) == {Owner(0), Owner(1), Owner(2)}
    assert max(owned.values()) < 1.5 * plan.num_params / 3


@pytest.mark.parametrize("workers", [2, 3, 4])
@pytest.mark.parametrize("hidden", [(1024, 512), (2048, 128), (1024, 1024)])
def test_workers_update_about_the_same(hidden: tuple[int, ...], workers: int) -> None:
    plan = plan_of(lambda: nn.mlp(hidden, 10), [range(workers)])
    owned = [
        sum(plan.pieces[i].stop - plan.pieces[i].start for chunk in chunks for i in chunk) for chunks in plan.chunks
    ]
    assert max(owned) < 1.1 * plan.num_params / workers


def test_neighbours_of_one_weight_are_a_single_product_as_long_as_that_is_a_tile() -> None:
    plan = plan_of(lambda: nn.mlp((1024, 1024), 10), [range(1)])
    rows = [
        sum(stop - start for start, stop in (plan.pieces[i].rows or (0, 0) for i in chunk)) for chunk in plan.chunks[0]
    ]
    assert [number for number in rows if number] == [64, *[128] * 8]


@pytest.mark.parametrize("nodes", [[range(2), range(2, 4)], [range(3), range(3, 6), range(6, 9)]])
def test_all_workers_of_a_node_add_what_it_owns(nodes: list[range]) -> None:
    cuts = bounds(36_000, 36)
    buckets = assign_buckets(cuts, [1.0] * len(cuts), nodes, [Owner(node) for node in range(len(nodes))])
    assert [(bucket.start, bucket.stop) for bucket in buckets] == list(cuts)
    adds = Counter(bucket.ranks[bucket.way.node] for bucket in buckets if isinstance(bucket.way, Owner))
    assert set(adds.values()) == {36 // nodes[-1].stop}


@on_several_nodes
def test_buckets_are_as_large_as_they_should_be(nodes: list[range]) -> None:
    numbers = []
    for bucket_bytes in (1 << 17, 1 << 18, 1 << 20, 1 << 30):
        plan = plan_of(MODELS["large mlp"], nodes, bucket_bytes=bucket_bytes)
        buckets = [load.bucket for stage in plan.stages for load in stage.loads]
        mean_bytes = 4 * plan.num_params / len(buckets)
        halves = 2 if Halving() in {bucket.way for bucket in buckets} else 1
        assert len(buckets) <= len(nodes) or mean_bytes == pytest.approx(halves * bucket_bytes, rel=0.3)
        numbers.append(len(buckets))
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[-1] <= len(nodes)


@of_every_model
@on_several_nodes
def test_where_sums_are_rounded_stages_leave_unless_a_group_is_spread_over_nodes(
    make: Make, nodes: list[range]
) -> None:
    whole = plan_of(make, nodes, shards=16, groups=16, rounding="bfloat16")
    assert whole.stages
    assert not whole.gathers
    assert sum(len(stage.loads) for stage in whole.stages) <= sum(
        len(stage.loads) for stage in plan_of(make, nodes, shards=16).stages
    )
    for spread in ({"groups": 1, "rounding": "bfloat16"}, {"groups": 16}):
        plan = plan_of(make, nodes, shards=16, **spread)
        assert plan.gathers
        assert plan.totals_shape == (sum(map(len, plan.subtrees)) * (HEAD + plan.num_params),)
