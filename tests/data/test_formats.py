"""The same content trains to the same bits, whatever format it is read from, and on any number of workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from dist_relu.data import from_frame, load
from tests.data import formats


def digest(coordinator: dr.Coordinator, data: dr.Dataset) -> str:
    model = nn.Sequential(nn.Flatten(), nn.Dense(8), nn.ReLU(), nn.Dense(4))
    coordinator.fit(model, data, dr.optim.SGD(0.1), epochs=2, batch_size=16, shards=4, seed=1)
    return model.sha256()


def written(write: Callable[[Path], Any], tmp_path: Path) -> dr.data.Split:
    return load(write(tmp_path))


@pytest.mark.parametrize("write", formats.IMAGES)
def test_images_are_the_same_in_every_format(
    write: Callable[[Path], Any], tmp_path: Path, two_workers: dr.Coordinator
) -> None:
    data = written(write, tmp_path)
    for part, shades, labels in (
        (data.train, formats.SHADES, formats.LABELS),
        (data.test, formats.TEST_SHADES, formats.TEST_LABELS),
    ):
        np.testing.assert_array_equal(np.asarray(part.x).reshape(shades.shape), shades * np.float32(1 / 255))
        assert part.y.tolist() == labels.tolist()
        if write is not formats.parquet_of_lists:
            assert part.image_shape == (8, 8, 1)
    assert (data.validation is not None) == (write is formats.medmnist)
    with dr.start(backend="serial") as alone:
        expected = digest(alone, dr.Dataset(formats.SHADES * np.float32(1 / 255), formats.LABELS))
    assert digest(two_workers, data.train) == expected


@pytest.mark.parametrize("write", formats.NUMBERS)
def test_numbers_are_the_same_in_every_format(
    write: Callable[[Path], Any], tmp_path: Path, two_workers: dr.Coordinator
) -> None:
    data = written(write, tmp_path)
    (tmp_path / "again").mkdir()
    expected = written(formats.npz, tmp_path / "again")
    for part, other in zip(data.parts, expected.parts, strict=True):
        np.testing.assert_array_equal(np.asarray(part.x), other.x)
        assert part.y.tolist() == other.y.tolist()
    with dr.start(backend="serial") as alone:
        assert digest(two_workers, data.train) == digest(alone, expected.train)


def test_frames_of_every_library_are_data_sets(two_workers: dr.Coordinator) -> None:
    digests = set()
    for frame in formats.frames():
        data = from_frame(frame, "label")
        np.testing.assert_array_equal(data.x, formats.X)
        assert data.y.tolist() == formats.Y.tolist()
        digests.add(digest(two_workers, data))
    assert len(digests) == 1


@pytest.mark.parametrize(
    "write", [formats.npy_files, formats.hdf5, formats.parquet, formats.many_parquets, formats.feather]
)
def test_what_memory_is_short_for_stays_in_its_file_and_has_the_same_bits(
    write: Callable[[Path], Any], tmp_path: Path, two_workers: dr.Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path)
    in_memory = load(source)
    monkeypatch.setattr("dist_relu.data.parts.available_memory_bytes", lambda: 100)
    in_files = load(source)
    assert isinstance(in_memory.train.rows.storage, np.ndarray)
    assert not isinstance(in_files.train.rows.storage, np.ndarray)
    for part, other in zip(in_files.parts, in_memory.parts, strict=True):
        np.testing.assert_array_equal(np.asarray(part.x), np.asarray(other.x))
    assert digest(two_workers, in_files.train) == digest(two_workers, in_memory.train)


@pytest.mark.parametrize("form", ["csv", "parquet", "feather", "npz", "frame"])
def test_weights_of_samples_come_with_them(tmp_path: Path, form: str) -> None:
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"a": rng.standard_normal(20), "sample_weight": np.arange(20.0), "y": np.arange(20) % 2})
    source = f"{tmp_path / 'train'}.{form}"
    match form:
        case "csv":
            frame.to_csv(source, index=False)
        case "parquet":
            frame.to_parquet(source)
        case "feather":
            frame.to_feather(source)
        case "npz":
            np.savez(source, x=frame[["a"]].to_numpy(), y=frame["y"], sample_weight=frame["sample_weight"])
    if form == "frame":
        parts: tuple[dr.Dataset, ...] = (from_frame(frame, "y"),)
    else:
        parts = load(source if form == "npz" else f"{source}:y").parts
    assert {part.x.shape[1:] for part in parts} == {(1,)}
    weight_of = dict(zip(frame["a"], frame["sample_weight"], strict=True))
    for part in parts:
        assert part.weights is not None
        assert [weight_of[a] for a in np.asarray(part.x)[:, 0]] == part.weights.tolist()
