"""Data sets of Ray Data train to the bits of the arrays of their rows, however they lie in blocks, and on nodes."""

from __future__ import annotations

import json

import pytest

from tests.ray_clusters import ray_start
from tests.runtime.test_ray import python

PROGRAM = """
import gc, json, tempfile, time
import numpy as np, ray, ray.data
import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.integrations.ray_data import dataset_from_ray

ray.init(log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
free = lambda: ray.available_resources()["object_store_memory"]
all_free = free()
rng = np.random.default_rng(0)
x, y = rng.standard_normal((500, 6)).astype("float32"), rng.integers(0, 3, 500)
large = rng.integers(0, 256, (500, 40, 40, 3), "uint8")
rows = [{"x": sample, "label": int(target)} for sample, target in zip(x, y)]
columns = [{**{f"f{i}": sample[i] for i in range(6)}, "label": int(target)} for sample, target in zip(x, y)]
text = [{"x": sample, "label": "abc"[target]} for sample, target in zip(x, y)]
images = [{"x": sample, "label": int(target)} for sample, target in zip(large, y)]
blocks = lambda items, number: dataset_from_ray(ray.data.from_items(items, override_num_blocks=number))
sets = {"array": dr.Dataset(x, y), **{f"{number} blocks": blocks(rows, number) for number in (1, 7, 100)}}
sets["columns"] = dataset_from_ray(ray.data.from_items(columns), features=[f"f{i}" for i in range(6)])
sets["text"] = blocks(text, 2)
sets["some rows"] = dr.Dataset(np.repeat(x, 2, axis=0), np.repeat(y, 2)).of_rows(np.arange(0, 1000, 2))
sets["some rows of blocks"] = blocks([row for row in rows for _ in "ab"], 3).of_rows(np.arange(0, 1000, 2))
pictures = {"array": dr.Dataset(large, y), **{f"{number} blocks": blocks(images, number) for number in (1, 5)}}

def trained(coordinator, data):
    model = nn.Sequential(nn.Flatten(), nn.Dense(16), nn.ReLU(), nn.Dense(3))
    coordinator.fit(model, data, optim.SGD(0.001), epochs=2, batch_size=50, shards=4, seed=1)
    outputs = coordinator.forward(model, data.rows)
    return model.sha256(), coordinator.evaluate(model, data).loss, outputs.tobytes().hex()[:1000]

def told(coordinator, place):
    for kind, found in (("numbers", sets), ("images", pictures)):
        for name, data in found.items():
            seen[kind].append([f"{name} on {place}", trained(coordinator, data)])

seen = {"numbers": [], "images": []}
with dr.start(backend="serial") as coordinator:
    told(coordinator, "serial")
with dr.start(2, backend="local") as coordinator:
    told(coordinator, "local 2")
with dr.start(4, backend="ray", spread=True) as coordinator:
    for workers in (4, 1):
        coordinator.resize(workers)
        told(coordinator, f"ray {workers} on {coordinator.nodes}")
are_held = all_free - free() > 2 * large.nbytes
del sets, pictures
gc.collect()
while free() < all_free:
    time.sleep(0.1)
with tempfile.TemporaryDirectory() as folder:
    ray.data.from_items(columns, override_num_blocks=5).write_parquet(folder, min_rows_per_file=100)
    lazy = ray.data.read_parquet(folder).map_batches(lambda batch: batch)
    table = dataset_from_ray(lazy, features=[f"f{i}" for i in range(6)])
    read = np.asarray(table.x)
    same = bool((read[np.lexsort(read.T)] == x[np.lexsort(x.T)]).all() and read.dtype == x.dtype)
errors = {}
for name, call in {
    "no target": lambda: dataset_from_ray(ray.data.from_items(rows), "y"),
    "only targets": lambda: dataset_from_ray(ray.data.from_items([{"label": 1}])),
    "text": lambda: dataset_from_ray(ray.data.from_items([{"x": "a", "label": 1}])),
    "arrays beside": lambda: dataset_from_ray(ray.data.from_items([{"x": np.ones(2), "z": 1, "label": 1}])),
    "unlike": lambda: blocks([{"x": np.ones(2 + i // 2), "label": 1} for i in range(4)], 2),
    "no data set": lambda: dataset_from_ray(x),
}.items():
    try:
        call()
    except (dr.DataError, TypeError) as error:
        errors[name] = str(error)
print("SEEN " + json.dumps([seen, errors, same, are_held]))
"""


@pytest.mark.chaos
def test_neither_blocks_nor_nodes_change_a_bit_and_what_can_not_be_trained_on_is_told() -> None:
    with ray_start(3, 1) as cluster:
        done = python(PROGRAM, cluster.environment)
    assert "SEEN " in done.stdout, done.stderr
    seen, errors, same, are_held = json.loads(done.stdout.partition("SEEN ")[2].splitlines()[0])
    for trainings in seen.values():
        (_, expected), *others = trainings
        assert [name for name, result in others if result != expected] == []
        assert {name.partition("on ")[2] for name, _ in trainings} >= {"serial", "local 2", "ray 4 on 2", "ray 1 on 1"}
    assert same
    assert are_held
    assert errors == {
        "no target": "The data set has no column 'y'; it has 'x', 'label'.",
        "only targets": "The data set has no column beside 'label'; expected samples, too.",
        "text": "Column 'x' holds text; expected numbers, or arrays of one shape.",
        "arrays beside": "Column 'x' holds arrays of shape (2,) beside other columns; name it alone: features=['x'].",
        "unlike": "Row 2 and those after it are float64 of shape (3,), but those before are float64 of shape (2,); "
        "expected the same for all.",
        "no data set": "dataset is a ndarray; expected a ray.data.Dataset.",
    }
