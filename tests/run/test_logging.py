"""A run tells the logger `dist_relu` how it goes on, and prints nothing."""

from __future__ import annotations

import logging

import pytest

import dist_relu as dr
from dist_relu import nn, optim


class Stop:
    every = 30

    def on_steps(self, trainer: dr.Trainer) -> None:
        raise KeyboardInterrupt


def test_a_run_tells_the_logger_of_its_epochs_and_how_it_ended(
    digits: dr.data.Split, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dist_relu")
    model = nn.mlp((16,), 10)
    with (
        dr.start(backend="serial") as coordinator,
        coordinator.trainer(model, digits.train, optim.SGD(0.1), batch_size=64, shards=4) as trainer,
    ):
        result = trainer.fit(epochs=1, validation=digits.test)
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(epochs=1, callbacks=[Stop()])
    epoch, validation = result.epochs[0], result.validations[0]
    assert [message.partition(", 0.")[0] for message in caplog.messages] == [
        f"Training {model.num_params} parameters on 1438 samples: steps 0 to 23, of 23 each epoch; backend serial, "
        "workers: 1.",
        f"Epoch 0: loss {epoch.loss:.4g}, accuracy {epoch.accuracy:.2%}",
        f"Validation after step 23: loss {validation.loss:.4g}, accuracy {validation.accuracy:.2%}",
        "Training ends after step 23.",
        f"Training {model.num_params} parameters on 1438 samples: steps 23 to 46, of 23 each epoch; backend serial, "
        "workers: 1.",
        "Training ends after step 30: KeyboardInterrupt",
    ]
    assert {record.name.partition(".")[0] for record in caplog.records} == {"dist_relu"}


def test_a_run_prints_nothing(digits: dr.data.Split, capfd: pytest.CaptureFixture[str]) -> None:
    with dr.start(backend="serial") as coordinator:
        coordinator.fit(nn.mlp((16,), 10), digits.train, optim.SGD(0.1), epochs=1, batch_size=64, shards=4)
    assert capfd.readouterr() == ("", "")
