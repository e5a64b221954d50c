"""Buckets are the messages between nodes that a vector is cut into: which way their sums take, and who sees to it.

The way is chosen by an estimate, from sizes and numbers alone, so that whoever makes the plan comes to the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dist_relu.comm.channel import MAX_TAG
from dist_relu.partition import Doubling, Halving, Owner, Round, SummationTree, TreeNode, Way

MESSAGE_S = 15e-6
"""What a message takes of a worker at either end, in seconds."""

LATENCY_S = 25e-6
"""What a message takes besides, until the other worker has noticed that it is there."""

BYTES_PER_S = 1.25e9
"""Of a link of 10 Gbit/s, which is about as much as a worker can send."""

BUCKET_BYTES = 1 << 18
"""Large enough for a link's full speed, small enough that it is soon on its way."""

LEAST_BUCKET_BYTES = 1 << 16
"""What is summed at a time is about as large, and goes with one bucket."""

MAX_BUCKETS = MAX_TAG // 4
"""Each has two tags; as many are left for others."""


@dataclass(frozen=True)
class Bucket:
    """A bucket has the elements from `start` to `stop` of the sums.

    way: in which it is added.  ranks: the worker who looks after the bucket, on each node.
    """

    number: int
    start: int
    stop: int
    way: Way
    ranks: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """A cutting is how a vector is to be cut: into how many buckets, and which ways they take in turn.

    rounds: so many messages of a bucket follow one another.  messages: which the busiest node sends and receives for
    all buckets.  share: how often the vector leaves it, or arrives there; the more of both.
    seconds: what the sum is estimated to take when nothing hides it.
    """

    ways: Sequence[Way]
    num_buckets: int
    rounds: int
    messages: int
    share: float
    seconds: float


def num_buckets(size_bytes: int, num_turns: int, bucket_bytes: int = BUCKET_BYTES) -> int:
    """Tell into how many buckets of about `bucket_bytes` to cut sums of so many bytes: a multiple of `num_turns`."""
    of_each = max(round(size_bytes / (bucket_bytes * num_turns)), 1)
    return num_turns * min(of_each, max(MAX_BUCKETS // num_turns, 1))


def choose_cutting(
    size_bytes: int, tree: SummationTree, held: Sequence[Sequence[TreeNode]], bucket_bytes: int = BUCKET_BYTES
) -> Cutting:
    """Choose the fastest way for sums of so many bytes.

    held: the partial sums that each node has.  bucket_bytes: about so large are messages.
    """
    return min(cuttings(size_bytes, tree, held, bucket_bytes).values(), key=lambda cutting: cutting.seconds)


def cuttings(
    size_bytes: int, tree: SummationTree, held: Sequence[Sequence[TreeNode]], bucket_bytes: int = BUCKET_BYTES
) -> dict[str, Cutting]:
    """Return what there is to choose from, by name."""
    nodes = len(held)
    owners = [Owner(node) for node in range(nodes)]
    found = {"owners": _cutting(size_bytes, tree, held, owners, bucket_bytes)}
    if nodes > 1:
        found["halving"] = _cutting(size_bytes, tree, held, [Halving()], 2 * bucket_bytes)  # a half is sent first
        found["doubling"] = _cutting(size_bytes, tree, held, [Doubling()], bucket_bytes)
    return found


def assign_buckets(
    cuts: Sequence[tuple[int, int]], costs: Sequence[float], nodes: Sequence[range], ways: Sequence[Way]
) -> Sequence[Bucket]:
    """Let buckets take the ways in turn, and give each to the worker with the least to do on every node.

    cuts: first element and end of each.  costs: of adding what lies on one node, in any unit; an owner's worker, who
    also adds what comes from the others, has about twice as much to do.  nodes: the ranks of each.
    """
    used = [0] * len(ways)
    busy = [[0.0] * len(ranks) for ranks in nodes]
    buckets = []
    for number, ((start, stop), cost) in enumerate(zip(cuts, costs, strict=True)):
        turn = used.index(min(used))
        used[turn] += stop - start
        way = ways[turn]
        looks_after = []
        for node, ranks in enumerate(nodes):
            idlest = busy[node].index(min(busy[node]))
            busy[node][idlest] += cost * (2 if way == Owner(node) else 1)
            looks_after.append(ranks[idlest])
        buckets.append(Bucket(number, start, stop, way, looks_after))
    return buckets


def _cutting(
    size_bytes: int, tree: SummationTree, held: Sequence[Sequence[TreeNode]], ways: Sequence[Way], bucket_bytes: int
) -> Cutting:
    """Estimate what a sum takes in buckets that go these ways in turn, which differ only in the nodes' parts.

    While the messages of one bucket follow one another, those of the next are under way.
    """
    turns = num_buckets(size_bytes, len(ways), bucket_bytes) // len(ways)
    rounds = ways[0].rounds(tree, held)
    loads = [_load(of_node) for of_node in rounds]
    if len(ways) > 1:  # each node has the first one's part once, and what it does for that one, for all others
        loads[0] = _load(ways[1].rounds(tree, held)[0])
        all_sent = sum(giver.sent for giver in loads)
        loads = [_load_of_turn(giver, len(held) - 1, all_sent - giver.sent) for giver in loads]
    messages, share = max(load.messages for load in loads), max(load.share for load in loads) / len(ways)
    messages_s = messages * MESSAGE_S
    bytes_s = share * size_bytes / turns / BYTES_PER_S
    in_a_row = max(sum(2 if one.returns else 1 for one in of_node) for of_node in rounds)
    return Cutting(
        ways=ways,
        num_buckets=turns * len(ways),
        rounds=in_a_row,
        messages=messages * turns,
        share=share,
        seconds=in_a_row * LATENCY_S + messages_s + bytes_s + (turns - 1) * max(messages_s, bytes_s),
    )


@dataclass(frozen=True)
class _Load:
    """What a node has to do for a bucket: messages both ways, and how often all of it leaves and arrives."""

    messages: int
    sent: float
    received: float

    @property
    def share(self) -> float:
        return max(self.sent, self.received)


def _load(rounds: Sequence[Round]) -> _Load:
    messages, sent, received = 0, 0.0, 0.0
    for one in rounds:
        given = sum(1 / part.parts for _, part in one.gives)
        kept = 1 / one.keeps.parts if one.keeps else 0.0
        messages += (2 if one.returns else 1) * (len(one.gives) + len(one.takes))
        sent += len(one.mine) * given + (len(one.takes) * kept if one.returns else 0.0)
        received += sum(map(len, one.theirs)) * kept + (given if one.returns else 0.0)
    return _Load(messages, sent, received)


def _load_of_turn(giver: _Load, others: int, sent_by_others: float) -> _Load:
    """Tell what a node has to do for as many buckets as there are nodes, of which it owns one.

    giver: what it has to do for a bucket that another one owns.  sent_by_others: for one that it owns.
    """
    return _Load(
        messages=2 * others * giver.messages,
        sent=others * (giver.sent + giver.received),
        received=others * giver.received + sent_by_others,
    )
