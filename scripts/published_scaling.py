"""Published scaling curves, as the cost model predicts them from stated inputs: python scripts/published_scaling.py

No number is fitted to them. What a source does not state is assumed, and said to be: those assumptions are the same for
all, and stand at the top. Prints a table: what was published, what is predicted, and how far that is off; those that
are further off than they should be are named, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dist_relu.scaling import Network, Part, Step, Work, step_of
from dist_relu.scaling.cost import slowest_of, traffic_of_scheme

SPREAD = 0.08 / 5.4
"""Devices of one type differ: Sinha et al. (SC 2022) found 8 % on average over five clusters of GPUs. Assumed: that is
the range of a box plot's whiskers, which is 5.4 standard deviations of normal times; and CPUs differ as much."""

BACKWARD_SHARE = 2 / 3
"""Assumed where only a whole step is known: backward multiplies twice as often as forward."""

LATENCY_S = 5e-6
"""Assumed for RDMA, Omni-Path and Aries: from one node to the next, through the library."""


@dataclass(frozen=True)
class Layer:
    """A layer with parameters, and what it multiplies for one sample, forward."""

    params: int
    macs: int


def vgg(widths: Sequence[Sequence[int]]) -> list[Layer]:
    """VGG (Simonyan and Zisserman 2015) of 224 x 224 pixels: convolutions of 3 x 3, and three dense layers."""
    layers, channels, side = [], 3, 224
    for block in widths:
        for width in block:
            weights = 9 * channels * width
            layers.append(Layer(weights + width, weights * side**2))
            channels = width
        side //= 2
    for inputs, units in ((channels * side**2, 4096), (4096, 4096), (4096, 1000)):
        layers.append(Layer(inputs * units + units, inputs * units))
    return layers


def resnet(depths: Sequence[int]) -> list[Layer]:
    """ResNet (He et al. 2016) with bottlenecks, of 224 x 224 pixels; each convolution with its normalisation."""
    layers = [_convolution(3, 64, 7, 112)]
    channels, side = 64, 56
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        for block in range(depth):
            before, side = side, side // 2 if stage and not block else side
            layers += [
                _convolution(channels, width, 1, before),
                _convolution(width, width, 3, side),
                _convolution(width, 4 * width, 1, side),
            ]
            if not block:
                layers.append(_convolution(channels, 4 * width, 1, side))
            channels = 4 * width
    return [*layers, Layer(channels * 1000 + 1000, channels * 1000)]


def _convolution(channels: int, width: int, size: int, side: int) -> Layer:
    weights = size**2 * channels * width
    return Layer(weights + 2 * width, weights * side**2)


def by_halving(work: Work, network: Network, nodes: int) -> Step:
    return step_of(work, network, nodes, traffic_of_scheme("halving", work, nodes))


def work_of(layers: Sequence[Layer], forward_s: float, backward_s: float) -> Work:
    """Say when gradients leave: backward goes through layers from the last one, for each as long as it multiplies."""
    total = sum(layer.macs for layer in layers)
    parts, at_s = [], forward_s
    for layer in reversed(layers):
        at_s += backward_s * layer.macs / total
        parts.append(Part(ready_s=at_s, size_bytes=4 * layer.params))
    return Work(parts=parts, shards_s=forward_s + backward_s)


def goyal() -> float:
    """352 GPUs beside 8, which share memory."""
    layers = resnet([3, 4, 6, 3])
    work = work_of(layers, 0.060, 0.120)
    ethernet = Network.of_ethernet("50G", LATENCY_S)
    few = work.seconds * slowest_of(8, SPREAD)
    return few / by_halving(work.slowed(slowest_of(352, SPREAD)), ethernet, 44).seconds


def horovod(layers: Sequence[Layer], step_s: float) -> float:
    """512 GPUs beside one. Sums are collective calls, one after another, each of what is ready, 64 MB at most."""
    gpus = 512
    work = work_of(layers, step_s * (1 - BACKWARD_SHARE), step_s * BACKWARD_SHARE)
    slowed = work.slowed(slowest_of(gpus, SPREAD))
    ethernet = Network.of_ethernet("25G", LATENCY_S)
    ring = traffic_of_scheme("ring", work, gpus)
    waiting, end_s = list(slowed.parts), 0.0
    while waiting:
        end_s = max(end_s, waiting[0].ready_s)
        size = 0.0
        while waiting and waiting[0].ready_s <= end_s and (not size or size + waiting[0].size_bytes <= 64e6):
            size += waiting.pop(0).size_bytes
        end_s += ring.share * size / ethernet.bytes_per_s + ring.rounds * ethernet.latency_s
    return work.seconds / max(end_s, slowed.seconds)


def mlperf() -> float:
    """8 nodes beside one, each with as many samples."""
    step_s = 128 / (32 / 0.180 * 0.85)
    work = work_of(resnet([3, 4, 6, 3]), step_s * (1 - BACKWARD_SHARE), step_s * BACKWARD_SHARE)
    omni_path = Network(name="100 Gbit/s", latency_s=LATENCY_S, bytes_per_s=100e9 / 8)
    return work.seconds / by_halving(work.slowed(slowest_of(8, SPREAD)), omni_path, 8).seconds


def das() -> float:
    """128 nodes beside one, which share 512 samples; dense layers are cut over all nodes, each with all samples."""
    layers = vgg([[64], [128], [256, 256], [512, 512], [512, 512]])
    step_s = 4 / 28
    work = work_of(layers[:-3], step_s * (1 - BACKWARD_SHARE), step_s * BACKWARD_SHARE)
    aries = Network(name="Aries", latency_s=LATENCY_S, bytes_per_s=10e9)
    step = by_halving(work.slowed(slowest_of(128, SPREAD)), aries, 128)
    activations = 512 * 4 * (512 * 7 * 7 + 4096 + 4096)
    return work.seconds / (step.seconds + 2 * activations / aries.bytes_per_s)


def cosmoflow() -> float:
    """1,024 nodes beside 512, each with one sample; gradients are summed when all are there."""
    work = Work(parts=[Part(ready_s=0.129, size_bytes=28.15e6)], shards_s=0.129)
    aries = Network(name="Aries", latency_s=LATENCY_S, bytes_per_s=10e9)
    few, many = (by_halving(work.slowed(slowest_of(nodes, SPREAD)), aries, nodes).seconds for nodes in (512, 1024))
    return few / many


@dataclass(frozen=True)
class Curve:
    """A published efficiency.

    within: how far a prediction may be off.  stated: what the source says of it.  assumed: what it does not say.
    reason: why a prediction is further off than that, where it is.
    """

    name: str
    source: str
    published: float
    within: float
    predict: Callable[[], float]
    stated: str
    assumed: str
    reason: str = ""


VGG_16 = vgg([[64, 64], [128, 128], [256] * 3, [512] * 3, [512] * 3])

CURVES = [
    Curve(
        "ResNet-50, 352 GPUs beside 8",
        "Goyal et al. (2017)",
        0.90,
        0.05,
        goyal,
        "25.6 M parameters, backward 120 ms, 50 Gbit/s for 8 GPUs, halving and doubling behind backward",
        "forward takes half as long as backward; the sum within a server takes no time",
        "all of the exchange fits behind backward, by 32 of 120 ms; what the 10 % are, the inputs do not tell",
    ),
    Curve(
        "ResNet-101, 512 GPUs",
        "Horovod",
        0.90,
        0.05,
        lambda: horovod(resnet([3, 4, 23, 3]), 64 / (1656.82 / 16)),
        "128 servers of 4 Pascal GPUs, 25 Gbit/s, batch 64, 103.6 images/s a GPU on 16, buffers of 64 MB",
        "a ring through all GPUs",
    ),
    Curve(
        "VGG-16, 512 GPUs",
        "Horovod",
        0.68,
        0.10,
        lambda: horovod(VGG_16, 64 / 154),
        "the same, 138 M parameters",
        "a ring; 154 images/s a GPU, which TensorFlow's benchmarks of 2017 had for a P100",
    ),
    Curve(
        "ResNet-50, 8 two-socket nodes",
        "MLPerf v0.5, Intel",
        0.95,
        0.05,
        mlperf,
        "0.85 of the reference GPU's speed on one node",
        "the reference GPU is Goyal's P100; 128 images a node; Omni-Path of 100 Gbit/s",
    ),
    Curve(
        "VGG-A, 128 nodes",
        "Das et al. (2016)",
        90 / 128,
        0.05,
        das,
        "512 images on 128 nodes, dense layers cut over nodes",
        "28 images/s on one node; 10 GB/s a node; four images take four times as long as one",
        "a node has 4 images, with which convolutions are slower than with 512: the source does not say by how much",
    ),
    Curve(
        "CosmoFlow, 1,024 nodes beside 512",
        "CosmoFlow",
        0.92,
        0.05,
        cosmoflow,
        "28.15 MB of gradient, 129 ms a sample, one sample a node",
        "10 GB/s a node; the sum is not hidden",
        "twice the nodes add one round to the sum; what else grows there, such as reading samples, is not stated",
    ),
]


def main() -> None:
    print(f"{'curve':34} {'source':20} {'published':>9} {'predicted':>9} {'off by':>7}")
    for curve in CURVES:
        predicted = curve.predict()
        off = predicted - curve.published
        is_hit = abs(off) <= curve.within
        numbers = f"{curve.published:9.0%} {predicted:9.1%} {100 * off:+7.1f}"
        print(f"{curve.name:34} {curve.source:20} {numbers}{'' if is_hit else '  missed'}")
        print(f"    stated: {curve.stated}\n    assumed: {curve.assumed}")
        if not is_hit:
            print(f"    missed by more than {100 * curve.within:.0f} points: {curve.reason}")


if __name__ == "__main__":
    main()
