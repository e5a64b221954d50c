"""A training that is stopped leaves what it has come to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim

EPOCHS = 6
X = np.random.default_rng(0).standard_normal((40, 6)).astype("float32")
Y = np.arange(40) % 3


def fit(coordinator: dr.Coordinator, model: nn.Sequential, epochs: int, **options: Any) -> dr.FitResult:
    """Every epoch is one step, always with the same batch."""
    rule = optim.Adam(0.01)
    return coordinator.fit(model, (X, Y), rule, epochs=epochs, batch_size=40, shards=4, shuffle=False, **options)


def new_model() -> nn.Sequential:
    return nn.Sequential(nn.Dense(8), nn.ReLU(), nn.Dense(3))


def stop_after(steps: int, error: BaseException) -> Callable[[Any], None]:
    def stop(event: Any) -> None:
        if event.epoch + 1 >= steps:
            raise error

    return stop


@pytest.fixture(scope="module")
def averages(coordinator: dr.Coordinator) -> dict[str, str]:
    """The digest of the average after any of the last steps, by that of the model."""
    digests = {}
    for steps in range(3, EPOCHS + 1):
        model = new_model()
        average = fit(coordinator, model, steps, ema_decay=0.5).average
        assert average is not None
        digests[model.sha256()] = average.sha256()
    return digests


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("enough")], ids=["Ctrl-C", "error"])
@pytest.mark.parametrize("callback", ["on_progress", "on_step", "on_epoch"])
def test_the_last_complete_step_is_kept(
    coordinator: dr.Coordinator, averages: dict[str, str], callback: str, error: BaseException
) -> None:
    stop = stop_after(3, error)
    watches: dict[str, Any] = {
        "on_progress": {"on_progress": stop},
        "on_step": {"watch": dr.Watch(1, on_step=stop)},
        "on_epoch": {"watch": dr.Watch(1, on_epoch=stop)},
    }
    model = new_model()
    with pytest.raises(type(error)) as caught:
        fit(coordinator, model, EPOCHS, ema_decay=0.5, **watches[callback])
    assert averages[model.sha256()] == caught.value.average.sha256()  # type: ignore[attr-defined]


def test_a_training_that_is_stopped_at_once_leaves_the_first_parameters_or_later_ones(
    coordinator: dr.Coordinator,
) -> None:
    def stop(_: object) -> NoReturn:
        raise KeyboardInterrupt

    model = new_model().build((6,)).initialize(seed=3)
    with pytest.raises(KeyboardInterrupt):
        fit(coordinator, model, EPOCHS, on_progress=stop)
    assert np.isfinite(model.values).all()
    assert coordinator.evaluate(model, (X, Y)).num_samples == len(X)
