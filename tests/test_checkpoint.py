"""Models as files."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from dist_relu.nn.description import construct, describe
from dist_relu.nn.structure import every_layer
from tests.conftest import small_model
from tests.run.test_state_file import with_header
from tests.twin import Array


def test_a_model_comes_back_as_it_was(tmp_path: Path, rng: np.random.Generator) -> None:
    model = nn.Sequential(nn.Dense(5, init=nn.GlorotNormal()), nn.ReLU(), nn.Dense(2, bias=False), nn.Softmax())
    model.build((3,)).initialize(seed=4)
    dr.save_model(model, tmp_path / "model.safetensors")
    loaded = dr.load_model(tmp_path / "model.safetensors")
    x = rng.standard_normal((4, 3), np.float32)
    assert repr(loaded) == repr(model)
    assert loaded.sha256() == model.sha256()
    assert (loaded.forward(x) == model.forward(x)).all()


MODELS: list[tuple[tuple[nn.Layer, ...], tuple[int, ...]]] = [
    ((nn.RNN(5, activation=nn.Tanh(), sequences=True), nn.Flatten(), nn.Dense(3)), (4, 3)),
    (
        (
            nn.Reshape((4, 4, 2)),
            nn.Conv2d(4, (3, 1), stride=(1, 2), padding=(1, 0), groups=2),
            nn.BatchNorm(scope="batch"),
            nn.PReLU(4),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dense(2, init=nn.Orthogonal(0.5)),
        ),
        (32,),
    ),
    (
        (
            nn.Residual((nn.Dense(6), nn.GELU(approximate="tanh"), nn.Dense(6)), (nn.Dense(6),)),
            nn.SwiGLU(),
            nn.LayerNorm(),
            nn.Dropout(0.1),
            nn.ActivityPenalty(0.001),
            nn.RReLU(),
            nn.CReLU(),
            nn.Dense(2),
        ),
        (6,),
    ),
    ((nn.Embedding(5, 3), nn.Flatten(), nn.Dense(2)), (4,)),
    ((nn.Standardize([0.1, 0.7], [1 / 3, 2.0]), nn.Dense(2)), (4,)),
    ((nn.FromNCHW(), nn.AvgPool2d(2), nn.GlobalAvgPool2d(), nn.Dense(4), nn.Categorical(3)), (2, 4, 4)),
    (
        (
            nn.Parallel([[nn.GLU()], [nn.ReGLU()], [nn.Softmax()], [nn.LogSoftmax()]]),
            nn.Dense(3),
            nn.TanhGaussian([-1.0], [1.0]),
        ),
        (6,),
    ),
    (
        (
            *(
                nn.ReLU(),
                nn.LeakyReLU(0.2),
                nn.ReLU6(),
                nn.Threshold(0.1, 0.2),
                nn.SquaredReLU(),
                nn.ELU(0.5),
                nn.SELU(),
            ),
            *(
                nn.SELU(),
                nn.CELU(0.5),
                nn.SiLU(),
                nn.Mish(),
                nn.Softplus(2.0),
                nn.Hardswish(),
                nn.Hardsigmoid(),
                nn.Hardtanh(),
            ),
            *(nn.Sigmoid(), nn.Tanh()),
        ),
        (6,),
    ),
]


def test_every_layer_stands_in_a_model_here() -> None:
    exported = [getattr(nn, name) for name in nn.__all__]
    layers = {kind for kind in exported if isinstance(kind, type) and issubclass(kind, nn.Layer)}
    used = {type(layer) for layers, _ in MODELS for layer in every_layer(layers)}
    missing = {kind for kind in layers if not inspect.isabstract(kind)} - used
    assert not missing, f"add {', '.join(kind.__name__ for kind in missing)} to MODELS"


@pytest.mark.parametrize(("layers", "shape"), MODELS, ids=lambda item: type(item[0]).__name__)
def test_every_kind_of_layer_comes_back(
    tmp_path: Path, rng: np.random.Generator, layers: tuple[nn.Layer, ...], shape: tuple[int, ...]
) -> None:
    model = nn.Sequential(*layers).build(shape).initialize(seed=4)
    dr.save_model(model, tmp_path / "model.safetensors")
    loaded = dr.load_model(tmp_path / "model.safetensors")
    x = rng.integers(0, 5, (3, *shape)).astype(np.float32)  # symbols too
    assert repr(loaded) == repr(model)
    assert (loaded.forward(x) == model.forward(x)).all()


def test_batch_norm_of_a_file_that_names_no_scope_is_over_shards() -> None:
    described = {"BatchNorm": {"momentum": 0.2, "epsilon": 1e-5}}  # as in files of before
    norm = construct(described, {"BatchNorm": nn.BatchNorm})
    assert describe(norm) == describe(nn.BatchNorm(momentum=0.2, scope="shard"))


def test_a_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    dr.save_model(small_model().build((3,)).initialize(), path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(dr.CheckpointError, match="is damaged"):
        dr.load_model(path)
    path.write_bytes(content[:-50])
    with pytest.raises(dr.CheckpointError, match=r"can't be read"):
        dr.load_model(path)
    path.write_bytes(b"no model at all")
    with pytest.raises(dr.CheckpointError, match=r"can't be read"):
        dr.load_model(path)


def test_a_refused_file_leaves_the_model_to_be_filled_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    dr.save_model(small_model("float64").build((3,)).initialize(seed=1), path)
    with pytest.raises(dr.CheckpointError, match="holds a model of float64; the one to be filled is of float32"):
        dr.load_model(path, small_model())
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    model = small_model("float64").build((3,)).initialize(seed=2)
    before = model.sha256()
    with pytest.raises(dr.CheckpointError, match="is damaged"):
        dr.load_model(path, model)
    assert model.sha256() == before


def test_a_header_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    dr.save_model(small_model().build((3,)).initialize(), path)
    path.write_bytes(path.read_bytes().replace(b"HeNormal", b"HeNormaX"))
    with pytest.raises(dr.CheckpointError, match="digest of its header"):
        dr.load_model(path)


@pytest.mark.parametrize(
    "loss", [nn.BinaryCrossEntropy((1.0, 2.0)), nn.Focal(1.5, alpha=0.25), nn.Huber(0.5), nn.MeanAbsoluteError(), None]
)
def test_a_model_keeps_the_loss_that_it_was_trained_with(tmp_path: Path, loss: nn.Loss | None) -> None:
    model = small_model().build((3,)).initialize()
    model.loss = loss
    dr.save_model(model, tmp_path / "model.safetensors")
    assert dr.load_model(tmp_path / "model.safetensors").loss == loss


@pytest.mark.parametrize(
    "text",
    [
        '{"Huber": {"delta": -1}}',
        '{"Huber": {"gamma": 1}}',
        '{"Loss": {}}',
        '{"Dense": {"units": 1}}',
        '{"os:system": {}}',
        '{"MixedTargets": {"loss": {"Huber": {}}, "others": [1], "share": 0.5}}',
        "[]",
        "7",
    ],
)
def test_a_loss_that_is_none_of_ours_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.safetensors"
    dr.save_model(small_model().build((3,)).initialize(), path)
    path.write_bytes(with_header(path.read_bytes(), lambda header: header["__metadata__"].update(loss=text)))
    with pytest.raises(dr.CheckpointError, match="has a loss that this version can't make"):
        dr.load_model(path)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    dr.save_model(small_model().build((3,)).initialize(seed=1), path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        dr.save_model(small_model().build((3,)).initialize(seed=2), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@dataclass(eq=False)
class Doubling(nn.Layer):
    """A layer of the user's own."""

    factor: float = 2.0
    _shape: tuple[int, ...] = field(init=False, default=())

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def params(self) -> list[nn.Param]:
        return []

    def forward(self, x: Array, run: nn.Pass = nn.PLAIN) -> Array:
        return np.multiply(x, self.factor, out=run.empty(x.shape, x.dtype))

    def backward(self, dy: Array, run: nn.Pass = nn.PLAIN, *, wants_dx: bool = True) -> Array:
        return np.multiply(dy, self.factor, out=run.empty(dy.shape, dy.dtype))


@pytest.mark.long
def test_layers_of_the_users_own_train_on_workers_and_load_into_their_model(
    tmp_path: Path, digits: dr.data.Split
) -> None:
    path = tmp_path / "model.safetensors"
    model = nn.Sequential(nn.Dense(16), Doubling(3.0), nn.Dense(10))
    with dr.start(2, backend="local") as coordinator:
        coordinator.fit(model, digits.train, dr.optim.SGD(0.01), epochs=1, batch_size=32)
    dr.save_model(model, path)
    with pytest.raises(dr.CheckpointError, match="layers that this version does not know"):
        dr.load_model(path)
    loaded = dr.load_model(path, nn.Sequential(nn.Dense(16), Doubling(3.0), nn.Dense(10)))
    assert loaded.sha256() == model.sha256()
