"""What messages take of cores in training is told by steps that were measured on several nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dist_relu.scaling import Cluster, Measurement, Network, Part, Point, Profile, Share, calibrated, forecast, strong
from dist_relu.scaling.machine import Company

CALM = Company(others=0.0, stolen=0.0, load=0.5)
WIDE = Network(name="wide", latency_s=0.0, bytes_per_s=1e12, message_s=1e-5, cpu_s_per_byte=1e-9)
NARROW = replace(WIDE, name="narrow", bytes_per_s=1e6)
POINT = strong(["mlp"], [1], backends=["mpi"], batch_sizes=[64], shards=[64])[0]


def profiles() -> list[Profile]:
    def made(nodes: int, rows: int) -> Profile:
        return Profile(
            share=Share(model="mlp", nodes=nodes, rows=rows, shards=rows),
            repetition=0,
            began=1.0,
            step_seconds=[rows * 1e-3] * 3,
            parts=[Part(ready_s=rows * 0.9e-3, size_bytes=4e6)] if nodes > 1 else [],
            node_sum_s=0.0,
            node_bytes=1000,
            company=CALM,
        )

    return [made(1, 64), *(made(2, rows) for rows in (1, 2, 4, 8, 16, 32, 64))]


def measured(seconds: float, workers: int, nodes: int, point: Point = POINT) -> Measurement:
    return Measurement(
        point=replace(point, workers=workers),
        repetition=0,
        began=1.0,
        nodes=nodes,
        step_seconds=[seconds] * 5,
        sha256="",
        company=CALM,
    )


def expected_s(network: Network, nodes: int) -> float:
    return forecast(POINT, profiles(), Cluster(network=network), [nodes])[0].seconds.value


def test_steps_tell_what_messages_take() -> None:
    dear = replace(WIDE, message_s=3 * WIDE.message_s, cpu_s_per_byte=3 * WIDE.cpu_s_per_byte)
    steps = [measured(expected_s(dear, nodes), nodes, nodes) for nodes in (2, 4, 8)]
    found = calibrated(WIDE, steps, profiles(), Cluster(network=WIDE))
    assert found
    network, factor = found
    assert factor.value == pytest.approx(3, rel=0.05)
    assert factor.low <= factor.value <= factor.high
    assert network.cpu_s_per_byte == pytest.approx(3e-9, rel=0.05)
    assert network.message_s == pytest.approx(3e-5, rel=0.05)


@pytest.mark.long
def test_where_the_wire_decides_messages_cost_what_they_did() -> None:
    steps = [measured(expected_s(NARROW, nodes), nodes, nodes) for nodes in (2, 4)]
    found = calibrated(NARROW, steps, profiles(), Cluster(network=NARROW))
    assert found
    assert found[1].value == pytest.approx(1, rel=0.05)


def test_steps_of_one_node_or_of_an_unknown_model_tell_nothing() -> None:
    steps = [measured(1.0, 2, 1), measured(1.0, 2, 2, replace(POINT, model="another"))]
    assert calibrated(WIDE, steps, profiles(), Cluster(network=WIDE)) is None
