"""Trials of Ray Tune train to the bits of `fit`, with any CPUs, and are not trained twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ray_clusters import RayCluster
from tests.runtime.test_ray import python

PROGRAM = """
import json, sys
import numpy as np, ray
from ray import tune
from ray.tune.schedulers import ResourceChangingScheduler
import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.integrations import ray_tune

ray.init(log_to_driver=False)
folder = FOLDER
rng = np.random.default_rng(0)
x, y = rng.standard_normal((400, 6)).astype("float32"), rng.integers(0, 3, 400)
train, test = (x[:300], y[:300]), (x[300:], y[300:])

def make(config):
    return ray_tune.Run(model=nn.mlp((16,), 3), optimizer=optim.SGD(config["lr"], momentum=0.9),
                        epochs=config.get("epochs", 3), batch_size=50, shards=4, seed=1)

def told(results):
    return {str(one.config["lr"]): one.metrics_dataframe[["loss", "validation_loss", "seconds"]].values.tolist()
            for one in results}

def tuned(name, scheduler=None, **more):
    trained = ray_tune.trainable(make, train, validation=test, cache=f"{folder}/cache")
    tuner = tune.Tuner(
        trained, param_space={"lr": tune.grid_search([0.1, 0.3]), **more},
        tune_config=tune.TuneConfig(scheduler=scheduler),
        run_config=tune.RunConfig(name=name, storage_path=f"{folder}/results", verbose=0,
                                  checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1)),
    )
    results = tuner.fit()
    assert not results.errors, results.errors
    return results

def wider(controller, trial, result, scheduler):
    return tune.PlacementGroupFactory([{"CPU": 2}]) if trial.config["lr"] == 0.1 else None

seen = {}
with dr.start(backend="serial") as coordinator:
    for lr in (0.1, 0.3):
        run = make({"lr": lr})
        fitted = coordinator.fit(run.model, train, run.optimizer, epochs=3, batch_size=50, shards=4, seed=1,
                                 validation=test)
        seen[f"fit {lr}"] = [[e.loss, v.loss] for e, v in zip(fitted.epochs, fitted.validations)]
seen["first"] = told(tuned("first", ResourceChangingScheduler(resources_allocation_function=wider)))
seen["again"] = told(tuned("again", epochs=tune.sample_from(lambda config: 4 if config["lr"] == 0.1 else 3)))

trial_class = ray_tune.trainable(make, train, validation=test)
one = trial_class({"lr": 0.1})
losses = [one.train()["loss"]]
checkpoint = one.save(f"{folder}/checkpoint")
one.stop()
other = trial_class({"lr": 0.1})
other.restore(checkpoint)
losses += [other.train()["loss"], other.train()["loss"]]
other.stop()
seen["paused"] = losses
try:
    trial_class({"lr": 0.2}).restore(checkpoint)
except dr.CheckpointError as error:
    seen["error"] = str(error)
print("SEEN " + json.dumps(seen))
"""


@pytest.fixture(scope="module")
def seen(ray_cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("tune")
    done = python(PROGRAM.replace("FOLDER", repr(str(folder))), ray_cluster.environment)
    assert "SEEN " in done.stdout, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.partition("SEEN ")[2].splitlines()[0])


def losses(rows: list[list[float]]) -> list[list[float]]:
    return [row[:2] for row in rows]


@pytest.mark.chaos
def test_a_trial_has_the_bits_of_fit(seen: Any) -> None:
    assert losses(seen["first"]["0.3"]) == seen["fit 0.3"]


@pytest.mark.chaos
def test_a_trial_that_is_resized_keeps_its_bits(seen: Any) -> None:
    assert losses(seen["first"]["0.1"]) == seen["fit 0.1"]


@pytest.mark.chaos
def test_the_same_trials_are_not_trained_again(seen: Any) -> None:
    assert seen["again"]["0.3"] == seen["first"]["0.3"], "not even their times differ"


@pytest.mark.chaos
def test_a_longer_trial_goes_on_from_a_shorter_one(seen: Any) -> None:
    assert seen["again"]["0.1"][:3] == seen["first"]["0.1"]
    assert len(seen["again"]["0.1"]) == 4


@pytest.mark.chaos
def test_a_trial_that_was_paused_goes_on_to_the_same_bits(seen: Any) -> None:
    assert seen["paused"] == [loss for loss, _ in seen["fit 0.1"]]


@pytest.mark.chaos
def test_the_checkpoint_of_another_config_is_refused(seen: Any) -> None:
    assert "This checkpoint is of another run" in seen["error"]
