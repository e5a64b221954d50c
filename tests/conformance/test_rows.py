"""Samples in files, and bytes in memory, train to the bits of the same numbers in memory."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.data import Augment, Rows
from tests.cases import long
from tests.data.stored import KINDS, stored

SHARDS = 4


def trained(coordinator: dr.Coordinator, data: dr.Dataset, augment: Augment | None = None) -> tuple[str, float, str]:
    """The digest of a model, its loss and its outputs."""
    model = nn.Sequential(nn.Reshape((4, 3, 1)), nn.Conv2d(3, 3), nn.ReLU(), nn.Flatten(), nn.Dense(3))
    coordinator.fit(model, data, optim.SGD(0.05, 0.9), epochs=2, batch_size=48, shards=SHARDS, seed=1, augment=augment)
    outputs = coordinator.forward(model, data.rows)
    return model.sha256(), coordinator.evaluate(model, data).loss, outputs.tobytes().hex()


@pytest.fixture(params=[None, Augment(crop=1, flip=True), Augment(crop=1, mixup=0.3)], ids=["plain", "crop", "mixup"])
def augment(request: pytest.FixtureRequest) -> Augment | None:
    changes: Augment | None = request.param
    return changes


def test_files_train_to_the_bits_of_an_array(
    coordinator: dr.Coordinator, augment: Augment | None, tmp_path: Path, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((200, 12)).astype(np.float32)
    y = x[:, :3].argmax(axis=1)
    shape = (4, 3, 1)
    expected = trained(coordinator, dr.Dataset(x, y, shape), augment)
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        assert trained(coordinator, dr.Dataset(stored(x, kind, tmp_path / kind), y, shape), augment) == expected, kind
    assert not [thread for thread in threading.enumerate() if "reader" in thread.name]


def test_bytes_train_to_the_bits_of_their_numbers(
    coordinator: dr.Coordinator, augment: Augment | None, tmp_path: Path, rng: np.random.Generator
) -> None:
    pixels = rng.integers(0, 256, (200, 12), np.uint8)
    y = pixels[:, :3].argmax(axis=1)
    shape, scale = (4, 3, 1), 1 / 255
    x = np.multiply(pixels, np.float32(scale), dtype=np.float32)
    expected = trained(coordinator, dr.Dataset(x, y, shape), augment)
    assert trained(coordinator, dr.Dataset(Rows(pixels, scale=scale), y, shape), augment) == expected
    for kind in ("npy", "hdf5-packed", "parquet-1"):
        (tmp_path / kind).mkdir()
        rows = stored(pixels, kind, tmp_path / kind, scale)
        assert trained(coordinator, dr.Dataset(rows, y, shape), augment) == expected, kind


@pytest.mark.parametrize(("num_files", "num_samples"), [(100, 500), *long((1000, 2000))])
def test_the_number_of_files_changes_no_bits(
    coordinator: dr.Coordinator, num_files: int, num_samples: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((num_samples, 12)).astype(np.float32)
    y = x[:, :3].argmax(axis=1)
    expected = trained(coordinator, dr.Dataset(x, y))
    assert trained(coordinator, dr.Dataset(stored(x, f"parquet-{num_files}", tmp_path), y)) == expected


def test_some_of_the_rows_of_a_file_are_a_data_set(
    coordinator: dr.Coordinator, tmp_path: Path, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((200, 12)).astype(np.float32)
    y = x[:, :3].argmax(axis=1)
    chosen = rng.permutation(200)[:100]
    expected = trained(coordinator, dr.Dataset(x[chosen], y[chosen]))
    for kind in ("npy", "parquet-10"):
        (tmp_path / kind).mkdir()
        data = dr.Dataset(stored(x, kind, tmp_path / kind), y).of_rows(chosen)
        assert trained(coordinator, data) == expected, kind
