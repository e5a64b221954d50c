"""What messages between nodes cost: a latency, and a time for each byte."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dist_relu.scaling.intervals import Interval
from dist_relu.scaling.measurement import Measurement

_RESAMPLES = 1000
_TAIL_PERCENT = 2.5

TCP_SHARE = 1448 / 1538
"""What is left of Ethernet's rate for the bytes of a TCP stream: frames of 1,538 bytes on the wire carry 1,448."""

TCP_LATENCY_S = 30e-6
"""What a small message takes over TCP between two machines of one rack, if nobody says otherwise."""

MESSAGE_S = 3e-6
"""What a message that is sent and one that is received take of a core, however small, if nobody says otherwise."""

LINKS = {
    "edr": (1.05e-6, 96.8e9 / 8),
    "hdr": (1.2e-6, 190e9 / 8),
    "ndr": (2e-6, 400e9 / 8),
    "aries": (1.651e-6, 9153.637e6),
    "slingshot-10": (2.76e-6, 12240.41e6),
    "efa": (19e-6, 11132.38e6 / 2),
}
"""Links that are known by name: what a small message takes in seconds, and how many bytes a second go each way.

edr, hdr, ndr: InfiniBand of 100, 200 and 400 Gbit/s between virtual machines of Azure: "RDMA latency & bandwidth" of
HC, HBv2 and HBv4 in learn.microsoft.com/azure/virtual-machines/{hc-series,hbv2,hbv4}-performance. The last has "< 2
microseconds".
aries, slingshot-10: of a Cray XC50, Piz Daint, and a Cray EX with 100 Gbit/s for a node, Eiger: what osu_latency and
osu_bw are held against at CSCS, as daint:gpu and eiger:mc in checks/microbenchmarks/mpi/osu/osu_tests.py of
github.com/eth-cscs/cscs-reframe-tests.
efa: Elastic Fabric Adapter of AWS with 100 Gbit/s, from one core of a c5n.18xlarge to one of another: what osu_latency
and half of osu_bibw (4 MiB) are held against, with Open MPI on alinux2023, in tests/integration-tests/tests/
performance_tests/test_osu of github.com/aws/aws-parallelcluster.
"""

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*g(?:bit(?:/s)?)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network connects all nodes alike, each by a link of its own, which carries as much in as out at a time.

    latency_s: until a message without content is there.  bytes_per_s: of a link, each way.
    message_s, cpu_s_per_byte: what a message that a node sends, however small, and one that it receives take of its
    core together, and each of their bytes.
    """

    name: str
    latency_s: float
    bytes_per_s: float
    message_s: float = MESSAGE_S
    cpu_s_per_byte: float = 0.0

    @classmethod
    def named(cls, name: str, latency_s: float | None = None) -> Network:
        """Take one of `LINKS`, or a rate such as "25G" for TCP over Ethernet.  Raises ValueError.

        latency_s: None for that of the link, or what TCP takes.
        """
        key = name.strip().lower()
        if key in LINKS:
            of_link_s, bytes_per_s = LINKS[key]
            return cls(name=key, latency_s=of_link_s if latency_s is None else latency_s, bytes_per_s=bytes_per_s)
        try:
            return cls.of_ethernet(name, TCP_LATENCY_S if latency_s is None else latency_s)
        except ValueError as error:
            raise ValueError(f"{error} Or one of {', '.join(LINKS)}.") from None

    @classmethod
    def of_ethernet(cls, name: str, latency_s: float = TCP_LATENCY_S) -> Network:
        """Take a rate such as "25G" for TCP over Ethernet.  Raises ValueError."""
        found = _RATE.fullmatch(name.strip())
        if not found or float(found[1]) <= 0:
            raise ValueError(f"{name!r} is no network: expected a rate in Gbit/s, such as 1G, 10G, 25G or 100G.")
        return cls(name=name, latency_s=latency_s, bytes_per_s=float(found[1]) * 1e9 / 8 * TCP_SHARE)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A network as it was measured.  latency_s, s_per_byte: with their intervals."""

    latency_s: Interval
    s_per_byte: Interval

    def network(self, name: str, *, message_s: float = MESSAGE_S, cpu_s_per_byte: float = 0.0) -> Network:
        """Return the network of these estimates."""
        return Network(
            name=name,
            latency_s=max(self.latency_s.value, 0.0),
            bytes_per_s=1 / self.s_per_byte.value,
            message_s=message_s,
            cpu_s_per_byte=cpu_s_per_byte,
        )


def fit(sizes_bytes: Sequence[float], seconds: Sequence[float], seed: int = 0) -> Fit:
    """Fit seconds = latency + bytes · s_per_byte by least squares, in relative terms, with bootstrap intervals.

    A message of 4 kB counts as much as one of 4 MB, since what is minimised are squares of relative errors. Draws are
    stratified by size, so that each of them has all sizes (Efron and Tibshirani 1993, chapter 9).
    Raises ValueError for fewer than two sizes.
    """
    sizes, times = np.asarray(sizes_bytes, float), np.asarray(seconds, float)
    groups = [np.flatnonzero(sizes == size) for size in np.unique(sizes)]
    if len(groups) < 2:
        raise ValueError("Latency and bandwidth need messages of two sizes or more.")
    rng = np.random.default_rng(seed)
    best = _least_squares(sizes, times, groups)
    drawn = np.array(
        [_least_squares(sizes, times, [rng.choice(group, len(group)) for group in groups]) for _ in range(_RESAMPLES)]
    )
    lows, highs = np.percentile(drawn, [_TAIL_PERCENT, 100 - _TAIL_PERCENT], axis=0)
    latency, slope = (Interval(*map(float, each)) for each in zip(best, lows, highs, strict=True))
    return Fit(latency_s=latency, s_per_byte=slope)


def _least_squares(sizes: np.ndarray, times: np.ndarray, groups: Sequence[np.ndarray]) -> tuple[float, float]:
    """Fit through the median of each size, so that a message that something has held up bends nothing."""
    at = np.array([sizes[group[0]] for group in groups])
    typical = np.array([np.median(times[group]) for group in groups])
    terms = np.stack([np.ones_like(at), at], axis=1) / typical[:, None]
    (latency, slope), *_ = np.linalg.lstsq(terms, np.ones_like(at), rcond=None)
    return float(latency), float(slope)


def measured(measurements: Sequence[Measurement]) -> tuple[Network, Fit]:
    """Return the network between the hosts of these measurements.  Raises ValueError where there was none."""
    messages = [message for one in measurements for message in one.messages]
    if not messages:
        raise ValueError(
            "No messages between hosts were measured. Name a network, such as 10G, or measure on several hosts: "
            "dist-relu scale --backend mpi --host a:1,b:1."
        )
    found = fit([size for size, _ in messages], [seconds for _, seconds in messages])
    message_s, cpu_s_per_byte = np.median(
        [(one.message_s, one.cpu_s_per_byte) for one in measurements if one.messages], axis=0
    )
    return found.network("measured", message_s=float(message_s), cpu_s_per_byte=float(cpu_s_per_byte)), found
