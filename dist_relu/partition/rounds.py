"""In which rounds nodes add what they have: who sends which part of a bucket to whom, and what is added then.

Every way begins with nodes alone, and joins groups of them until there is one. When groups join, whoever keeps a part
of the bucket gets the others' partial sums of it and adds those that are siblings in the summation tree; what is left
is carried on as rows. So ways differ in messages and in bytes, and in no bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

from dist_relu.partition.tree import SummationTree, TreeNode

Held = Sequence[TreeNode]
"""The partial sums that a node or a group of nodes has, in the order of their shards."""


class Part(NamedTuple):
    """One of `parts` equal parts of a bucket, counted from 0."""

    number: int
    parts: int

    def bounds(self, size: int) -> tuple[int, int]:
        """Return the first element and the end of this part of a bucket of `size` elements."""
        return self.number * size // self.parts, (self.number + 1) * size // self.parts

    def halves(self) -> tuple[Part, Part]:
        """Return both halves of this part."""
        return Part(2 * self.number, 2 * self.parts), Part(2 * self.number + 1, 2 * self.parts)


WHOLE = Part(0, 1)


@dataclass(frozen=True, kw_only=True)
class Round:
    """A round is what a node does when its group joins others.

    has: the part of the bucket that it has rows of.  keeps: what of that it has rows of afterwards; None: of nothing.
    gives: the nodes that get its rows, and of which part.  takes: the nodes whose rows of `keeps` it gets.
    rows: what lies side by side then.  mine: which of these it has already.  theirs: which come from each of `takes`.
    carries: how the rows are added, see `SummationTree.fold`.
    returns: whether sums come back: those of `keeps` go to all of `takes`, those of `gives` come from there.
    """

    has: Part
    keeps: Part | None
    gives: Sequence[tuple[int, Part]]
    takes: Sequence[int]
    rows: Held
    mine: Sequence[int]
    theirs: Sequence[Sequence[int]]
    carries: Sequence[int]
    returns: bool


class Way(ABC):
    """A way of adding what several nodes have."""

    @abstractmethod
    def rounds(self, tree: SummationTree, held: Sequence[Held]) -> list[list[Round]]:
        """Return the rounds of every node.  held: what each has, all leaves of the tree among them."""


@final
@dataclass(frozen=True)
class Owner(Way):
    """One node gets the rows of all others, adds them, and sends the sum to all; others do for other buckets.

    Two messages follow one another, whatever the number of nodes. For n buckets each of n nodes sends 2·(n - 1).
    """

    node: int

    def rounds(self, tree: SummationTree, held: Sequence[Held]) -> list[list[Round]]:
        join = _Join(tree, held)
        others = [node for node in range(len(held)) if node != self.node]
        rounds = [[_giving(rows, WHOLE, [(self.node, WHOLE)])] for rows in held]
        rounds[self.node] = [join.round(self.node, WHOLE, WHOLE, [], others)]
        return rounds


@final
@dataclass(frozen=True)
class Halving(Way):
    """Neighbours send one another half of the bucket, pairs of pairs a quarter, and so on; sums come back in reverse.

    Recursive halving and doubling: 2·log2(n) messages follow one another, and 2·(n - 1)/n of the bucket leave each of n
    nodes. Thakur, Rabenseifner and Gropp (2005), "Optimization of collective communication operations in MPICH".

    Groups are subtrees of the summation tree, as far as nodes have whole ones. When both groups that join keep as many
    parts, each part is halved between the two nodes that have it; otherwise those of the group with more parts keep
    theirs. So any number of nodes will do, and at most twice the bucket leaves each.
    """

    def rounds(self, tree: SummationTree, held: Sequence[Held]) -> list[list[Round]]:
        rounds: list[list[Round]] = [[] for _ in held]

        def group(nodes: range) -> tuple[Held, Mapping[Part, int]]:
            """Join some nodes; returns what they have together, and who of them keeps which part."""
            if len(nodes) == 1:
                return held[nodes.start], {WHOLE: nodes.start}
            cut = _cut(tree, held[nodes.start : nodes.stop], range(1, len(nodes)))
            rows, keepers = zip(*(group(side) for side in (nodes[:cut], nodes[cut:])), strict=True)
            join = _Join(tree, rows)
            if len(keepers[0]) == len(keepers[1]):
                return join.sums, _halve(join, keepers, rounds)
            return join.sums, _hand_over(join, rows, keepers, rounds)

        group(range(len(held)))
        return rounds


@final
@dataclass(frozen=True)
class Doubling(Way):
    """Neighbours send one another all that they have, then pairs of pairs, and so on; everybody adds everything.

    Recursive doubling: log2(n) messages follow one another, the fewest that there are, and as many whole buckets leave
    each of n nodes. It is for buckets whose bytes matter little, and for two nodes, where no way sends less.
    """

    def rounds(self, tree: SummationTree, held: Sequence[Held]) -> list[list[Round]]:
        rounds: list[list[Round]] = [[] for _ in held]

        def group(nodes: range) -> Held:
            """Join some nodes; returns what they have together."""
            if len(nodes) == 1:
                return held[nodes.start]
            half = len(nodes) // 2
            cut = _cut(tree, held[nodes.start : nodes.stop], (half, len(nodes) - half))
            sides = nodes[:cut], nodes[cut:]
            join = _Join(tree, [group(side) for side in sides])
            for number, (mine, theirs) in enumerate((sides, sides[::-1])):
                for i, node in enumerate(mine):
                    gives = [(other, WHOLE) for other in theirs[i % len(mine) :: len(mine)]]
                    takes = [theirs[i % len(theirs)]]
                    rounds[node].append(join.round(number, WHOLE, WHOLE, gives, takes, returns=False))
            return join.sums

        group(range(len(held)))
        return rounds


@final
class _Join:
    """Groups join.  sums: what they have when siblings are added.  sides: what each has had."""

    def __init__(self, tree: SummationTree, sides: Sequence[Held]) -> None:
        placed = sorted((tree.shards_of(row).start, number, row) for number, rows in enumerate(sides) for row in rows)
        self._rows = [row for _, _, row in placed]
        self._places: list[list[int]] = [[] for _ in sides]
        for place, (_, number, _) in enumerate(placed):
            self._places[number].append(place)
        self._carries, self.sums = tree.fold(self._rows)

    def round(
        self,
        side: int,
        has: Part,
        keeps: Part,
        gives: Sequence[tuple[int, Part]],
        takes: Sequence[int],
        *,
        returns: bool = True,
    ) -> Round:
        """Return the round of a node of this side that keeps something; `takes` has a node of each other side."""
        return Round(
            has=has,
            keeps=keeps,
            gives=gives,
            takes=takes,
            rows=self._rows,
            mine=self._places[side],
            theirs=[places for number, places in enumerate(self._places) if number != side],
            carries=self._carries,
            returns=returns,
        )


def _giving(rows: Held, has: Part, gives: Sequence[tuple[int, Part]]) -> Round:
    """Return the round of a node that keeps nothing."""
    return Round(
        has=has,
        keeps=None,
        gives=gives,
        takes=(),
        rows=rows,
        mine=range(len(rows)),
        theirs=(),
        carries=(),
        returns=True,
    )


def _halve(join: _Join, keepers: Sequence[Mapping[Part, int]], rounds: list[list[Round]]) -> Mapping[Part, int]:
    """Halve each part between its keepers on both sides; returns who keeps what then."""
    halves: dict[Part, int] = {}
    for part, left in keepers[0].items():
        right = keepers[1][part]
        first, second = part.halves()
        rounds[left].append(join.round(0, part, first, [(right, second)], [right]))
        rounds[right].append(join.round(1, part, second, [(left, first)], [left]))
        halves |= {first: left, second: right}
    return halves


def _hand_over(
    join: _Join, rows: Sequence[Held], keepers: Sequence[Mapping[Part, int]], rounds: list[list[Round]]
) -> Mapping[Part, int]:
    """Let those of the side with more parts keep them; returns who keeps what, which is as before.

    rows, keepers: of both sides.
    """
    more = 0 if len(keepers[0]) > len(keepers[1]) else 1
    fewer = 1 - more
    gives: dict[int, list[tuple[int, Part]]] = {giver: [] for giver in keepers[fewer].values()}
    for part, keeper in keepers[more].items():
        count = len(keepers[fewer])
        giver = keepers[fewer][Part(part.number * count // part.parts, count)]
        gives[giver].append((keeper, part))
        rounds[keeper].append(join.round(more, part, part, [], [giver]))
    for part, giver in keepers[fewer].items():
        rounds[giver].append(_giving(rows[fewer], part, gives[giver]))
    return keepers[more]


def _cut(tree: SummationTree, held: Sequence[Held], cuts: Iterable[int]) -> int:
    """Choose where to cut nodes into two groups, so that these have the fewest rows; of equals, next to the middle."""
    middle = len(held) // 2
    if all(len(_Join(tree, half).sums) == 1 for half in (held[:middle], held[middle:])):
        return middle  # there are no fewer
    left = _num_rows(tree, held)
    right = _num_rows(tree, held[::-1])
    return min(cuts, key=lambda cut: (left[cut - 1] + right[len(held) - cut - 1], abs(2 * cut - len(held))))


def _num_rows(tree: SummationTree, held: Sequence[Held]) -> list[int]:
    """Count what the first node has, the first two together, and so on."""
    together: Held = []
    counts = []
    for rows in held:
        together = _Join(tree, [together, rows]).sums
        counts.append(len(together))
    return counts
