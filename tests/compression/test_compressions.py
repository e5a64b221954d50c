"""What compressions say of themselves, and that a run with one survives the loss of a worker."""

from __future__ import annotations

import os
import re
import signal

import pytest

import dist_relu as dr
from dist_relu import compression, nn
from dist_relu.runtime.world import World


def model(dtype: str = "float32") -> nn.Sequential:
    return nn.Sequential(nn.Dense(100), nn.BatchNorm(), nn.ReLU(), nn.Dense(10), dtype=dtype).build((200,))


@pytest.mark.parametrize(("dtype", "itemsize"), [("float32", 4), ("float64", 8)])
def test_the_bytes_that_are_sent_are_counted(dtype: str, itemsize: int) -> None:
    weights, biases, scales, means = (200 * 100, 100 * 10), (100, 10), (100, 100), (100, 100)
    trained = sum((*weights, *biases, *scales))
    assert compression.Rounded("float16").bytes_sent(model(dtype)) == 2 * trained + itemsize * sum(means)
    counts = 200 + 10 + 1 + 1 + 1 + 1
    assert compression.TopK(0.01).bytes_sent(model(dtype)) == (4 + itemsize) * counts + itemsize * sum(means)
    ranks = 4 * (200 + 100) + 4 * (100 + 10)
    assert compression.PowerSGD(4).bytes_sent(model(dtype)) == itemsize * (ranks + sum((*biases, *scales, *means)))


def test_weights_that_would_not_become_smaller_are_sent_as_they_are() -> None:
    assert compression.PowerSGD(10).bytes_sent(model()) == 4 * (10 * 300 + 1000 + 10 + 100 + 400)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: compression.TopK(0), "TopK(share=0): must be above 0"),
        (lambda: compression.TopK(1.5), "TopK(share=1.5): must be above 0 and at most 1"),
        (lambda: compression.TopK(groups=0), "TopK(groups=0): must be at least 1"),
        (lambda: compression.PowerSGD(0), "PowerSGD(rank=0): must be at least 1"),
        (lambda: compression.Rounded("fp16"), "Rounded(to='fp16'): expected"),  # type: ignore[arg-type]
    ],
)
def test_compressions_that_make_no_sense_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def pid(world: World, request: None) -> int:
    return os.getpid()


@pytest.mark.parametrize(("share", "size", "count"), [(0.07, 100, 7), (0.14, 100, 14), (0.01, 3, 1), (1.0, 5, 5)])
def test_top_k_sends_the_share_rounded_up(share: float, size: int, count: int) -> None:
    assert compression.TopK(share).count(size) == count


@pytest.mark.long
@pytest.mark.parametrize("how", [compression.TopK(0.05), compression.PowerSGD(2)], ids=repr)
def test_what_was_left_out_survives_the_loss_of_a_worker(digits: dr.data.Split, how: compression.Compression) -> None:
    digests = []
    for backend, workers in (("serial", 1), ("local", 3)):
        with dr.start(workers, backend=backend) as coordinator:

            class Disturbance:
                def on_epoch_end(
                    self, trainer: dr.Trainer, summary: dr.EpochSummary, place: dr.Coordinator = coordinator
                ) -> None:
                    if place.workers == 3 and summary.epoch == 1:
                        os.kill(place.run(pid, None)[1], signal.SIGKILL)

            network = nn.mlp((32,), 10)
            coordinator.fit(
                network,
                digits.train,
                dr.optim.SGD(0.1, momentum=0.9),
                epochs=4,
                batch_size=64,
                shards=4,
                compression=how,
                callbacks=[Disturbance()],
            )
            assert workers == 1 or len(coordinator.recoveries) == 1
            digests.append(network.sha256())
    assert digests[0] == digests[1]
