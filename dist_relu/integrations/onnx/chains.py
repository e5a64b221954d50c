"""A graph as layers one after the other: where it branches, and where branches meet again.

Our models are chains of layers, some of which have chains within: `Residual`, where two are added, and `Parallel`,
where several stand side by side. Where branches that meet have come apart is their nearest common dominator: the last
array that all of them go through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from dist_relu.errors import CheckpointError
from dist_relu.integrations.onnx.patterns import find
from dist_relu.integrations.onnx.source import Node, Source
from dist_relu.nn import Layer


@final
@dataclass(frozen=True)
class Link:
    """A link of a chain: a node, or several that are one layer.

    layer: what a pattern of nodes is, of which `node` is the last.  branches: chains that the node puts together.
    """

    node: Node
    layer: Layer | None = None
    branches: Sequence[Sequence[Link]] = ()


@final
class Chains:
    """Finds the chains of a graph.  Raises `CheckpointError` where it is none."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._above: dict[str, str] = {source.input: ""}  # the nearest dominator of every array
        self._depths = {source.input: 0}
        self._seen: set[str] = set()
        for node in source.nodes:
            data = _data(source, node)
            if data and all(name in self._above for name in data):
                above = self._meeting(data)
                for output in node.outputs:
                    self._above[output], self._depths[output] = above, self._depths[above] + 1

    def to(self, output: str) -> list[Link]:
        """From the graph's input to an array."""
        return self._between(self._source.input, output, None)

    def _meeting(self, names: Sequence[str]) -> str:
        """The nearest array that all of these go through."""
        first, *others = names
        for other in others:
            while first != other:
                if self._depths[first] >= self._depths[other]:
                    first = self._above[first]
                else:
                    other = self._above[other]  # noqa: PLW2901
        return first

    def _between(self, start: str, end: str, whose: Node | None) -> list[Link]:
        """From one array to another, which comes of it.  whose: the node that needs it."""
        links: list[Link] = []
        while end != start:
            if end not in self._above or end == self._source.input:
                needs = f"{whose} needs" if whose else "The output is"
                raise CheckpointError(f"{needs} {end!r}, which does not come of the input {self._source.input!r}.")
            if end in self._seen:
                raise self._source.producers[end].refuse(
                    "goes into several branches that begin elsewhere; expected branches that come apart at one place "
                    "and meet at one, as those of nn.Residual and nn.Parallel."
                )
            self._seen.add(end)
            link, end = self._link(end, start)
            whose = link.node
            links.append(link)
        return links[::-1]

    def _link(self, end: str, start: str) -> tuple[Link, str]:
        """The last link to an array, and what it begins with, which is no further up than `start`."""
        node, above = self._source.producers[end], self._above[end]
        for begin in [above] if above == start else [above, self._above[above]]:  # as in max(x, 0) times itself
            layer = find(self._source, end, begin)
            if layer is not None:
                return Link(node, layer), begin
        data = _data(self._source, node)
        if len(data) == 1:
            return Link(node), data[0]
        return Link(node, branches=[self._between(above, name, node) for name in data]), above


def _data(source: Source, node: Node) -> list[str]:
    """What a node computes with, without what other libraries compute though it is known: shapes, and states of 0."""
    return list(node.inputs[:1]) if node.operator in ("Reshape", "RNN") else source.data(node)
