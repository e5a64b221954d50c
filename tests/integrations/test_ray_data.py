"""Data sets of Ray Data train to the bits of the arrays of their rows, however they lie in blocks."""

from __future__ import annotations

import json

import pytest

from tests.ray_clusters import RayCluster
from tests.runtime.test_ray import python

PROGRAM = """
import json, tempfile
import numpy as np, ray, ray.data
import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.integrations.ray_data import dataset_from_ray

ray.init(log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
rng = np.random.default_rng(0)
x, y = rng.standard_normal((500, 6)).astype("float32"), rng.integers(0, 3, 500)

def digest(data):
    with dr.start(backend="serial") as coordinator:
        model = nn.mlp((16,), 3)
        coordinator.fit(model, data, optim.SGD(0.1), epochs=2, batch_size=50, shards=4, seed=1)
        return model.sha256()

rows = [{"x": sample, "label": int(target)} for sample, target in zip(x, y)]
columns = [{**{f"f{i}": sample[i] for i in range(6)}, "label": int(target)} for sample, target in zip(x, y)]
text = [{"x": sample, "label": "abc"[target]} for sample, target in zip(x, y)]
seen = {"array": digest((x, y))}
for blocks in (1, 7, 100):
    seen[f"blocks {blocks}"] = digest(dataset_from_ray(ray.data.from_items(rows, override_num_blocks=blocks)))
seen["columns"] = digest(dataset_from_ray(ray.data.from_items(columns), features=[f"f{i}" for i in range(6)]))
with tempfile.TemporaryDirectory() as folder:
    ray.data.from_items(columns, override_num_blocks=5).write_parquet(folder, min_rows_per_file=100)
    lazy = ray.data.read_parquet(folder).map_batches(lambda batch: batch)
    table = dataset_from_ray(lazy, features=[f"f{i}" for i in range(6)])
    order = np.lexsort(table.x.T)
    seen["parquet"] = bool((table.x[order] == x[np.lexsort(x.T)]).all() and table.x.dtype == x.dtype)
seen["text"] = digest(dataset_from_ray(ray.data.from_items(text)))
errors = {}
for name, call in {
    "no target": lambda: dataset_from_ray(ray.data.from_items(rows), "y"),
    "only targets": lambda: dataset_from_ray(ray.data.from_items([{"label": 1}])),
    "text": lambda: dataset_from_ray(ray.data.from_items([{"x": "a", "label": 1}])),
    "arrays beside": lambda: dataset_from_ray(ray.data.from_items([{"x": np.ones(2), "z": 1, "label": 1}])),
    "no data set": lambda: dataset_from_ray(x),
}.items():
    try:
        call()
    except (dr.DataError, TypeError) as error:
        errors[name] = str(error)
print("SEEN " + json.dumps([seen, errors]))
"""


@pytest.mark.long
def test_blocks_change_no_bit_and_what_can_not_be_trained_on_is_told(ray_cluster: RayCluster) -> None:
    done = python(PROGRAM, ray_cluster.environment)
    assert "SEEN " in done.stdout, done.stderr
    seen, errors = json.loads(done.stdout.partition("SEEN ")[2].splitlines()[0])
    digest = seen.pop("array")
    assert seen.pop("parquet")
    assert set(seen.values()) == {digest}
    assert errors == {
        "no target": "The data set has no column 'y'; it has 'x', 'label'.",
        "only targets": "The data set has no column beside 'label'; expected samples, too.",
        "text": "Column 'x' holds text; expected numbers, or arrays of one shape.",
        "arrays beside": "Column 'x' holds arrays of shape (2,) beside other columns; name it alone: features=['x'].",
        "no data set": "dataset is a ndarray; expected a ray.data.Dataset.",
    }
