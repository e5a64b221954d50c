"""A layer is one object in one place of one model, and files say whose classes layers are of."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from dist_relu.nn.description import describe
from tests.twin import Array


@dataclass(eq=False)
class ReLU(nn.Layer):
    """Cut at `most` too, with a name that is taken."""

    most: float = 0.1

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def params(self) -> Sequence[nn.Param]:
        return []

    def forward(self, x: Array, run: nn.Pass = nn.PLAIN) -> Array:
        return np.clip(x, 0, self.most, out=run.empty(x.shape, x.dtype))

    def backward(self, dy: Array, run: nn.Pass = nn.PLAIN, *, wants_dx: bool = True) -> Array:
        return dy


@dataclass(eq=False)
class Both(nn.Layer):
    """Layers of somebody's own around others."""

    inner: Sequence[nn.Layer] = ()
    named: dict[str, nn.Layer] = field(default_factory=dict)

    def _all(self) -> list[nn.Layer]:
        return [*self.inner, *self.named.values()]

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        for layer in self._all():
            input_shape = layer.build(input_shape)
        return input_shape

    def params(self) -> Sequence[nn.Param]:
        return [param for layer in self._all() for param in layer.params()]

    def forward(self, x: Array, run: nn.Pass = nn.PLAIN) -> Array:
        for layer in self._all():
            x = layer.forward(x, run)
        return x

    def backward(self, dy: Array, run: nn.Pass = nn.PLAIN, *, wants_dx: bool = True) -> Array:
        for layer in reversed(self._all()):
            dy = layer.backward(dy, run)
        return dy


@dataclass(frozen=True)
class HeNormal(nn.Initializer):
    """Ones, with a name that is taken."""

    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        return np.ones(shape)


class Plain(nn.Layer):
    """No dataclass."""

    def __init__(self, units: int = 3) -> None:
        self.dense = nn.Dense(units)

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.dense.build(input_shape)

    def params(self) -> Sequence[nn.Param]:
        return self.dense.params()

    def forward(self, x: Array, run: nn.Pass = nn.PLAIN) -> Array:
        return self.dense.forward(x, run)

    def backward(self, dy: Array, run: nn.Pass = nn.PLAIN, *, wants_dx: bool = True) -> Array:
        return self.dense.backward(dy, run)


class PlainBelow(ReLU):
    """A dataclass's child with a constructor that its fields know nothing of."""

    def __init__(self) -> None:
        super().__init__(0.5)


def in_two_bodies(layer: nn.Layer) -> nn.Sequential:
    return nn.Sequential(nn.Residual([layer]), nn.Residual([layer]))


@pytest.mark.parametrize(
    "make",
    [
        lambda layer: nn.Sequential(layer, layer),
        lambda layer: nn.Sequential(nn.Residual([nn.LayerNorm(), layer, nn.LayerNorm(), layer])),
        lambda layer: nn.Sequential(nn.Residual([layer], [layer])),
        lambda layer: nn.Sequential(nn.Parallel([[nn.Dense(2), layer], [nn.Dense(2), layer]])),
        lambda layer: nn.Sequential(nn.Residual([nn.Residual([layer])]), layer),
        lambda layer: nn.Sequential(Both([layer]), layer),
        lambda layer: nn.Sequential(Both([layer], {"also": layer})),
        in_two_bodies,
    ],
)
def test_a_layer_that_stands_twice_in_a_model_is_refused(make: Callable[[nn.Layer], nn.Sequential]) -> None:
    with pytest.raises(ValueError, match=r"ReLU stands twice in the model, at \S+ and at \S+\. .*: build a second one"):
        make(nn.ReLU())


def test_a_layer_of_another_model_is_refused_as_long_as_that_is_there() -> None:
    model = nn.Sequential(nn.Dense(4), nn.ReLU(), nn.Residual([nn.Dense(4)])).build((6,)).initialize()
    before = model.sha256()
    for layers in (model.layers, [nn.Residual([model.layers[0]])], [nn.Dense(4), *model.layers[2].body]):  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match=r"Layer \d: Dense belongs to another model"):
            nn.Sequential(*layers).build((6,))
    assert model.sha256() == before
    layers = model.layers
    nn.Sequential(*model.blueprint().layers).build((6,))
    del model
    nn.Sequential(*layers).build((6,))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_of_a_model_own_their_layers(copied: Callable[[nn.Sequential], nn.Sequential]) -> None:
    model = copied(nn.Sequential(nn.Dense(4)).build((6,)).initialize())
    with pytest.raises(ValueError, match="belongs to another model"):
        nn.Sequential(*model.layers).build((6,))


@pytest.mark.parametrize("layer", [Plain(), PlainBelow(), nn.Residual([Plain()])])
def test_layers_that_are_no_dataclasses_are_refused(layer: nn.Layer) -> None:
    with pytest.raises(TypeError, match=r"Plain\w* is no dataclass: .* Write @dataclass"):
        nn.Sequential(layer)


def test_arguments_of_layers_are_not_shared_by_copies() -> None:
    model = nn.Sequential(Both(named={"only": nn.Dense(4)})).build((6,)).initialize()
    copied = model.blueprint().build((6,)).initialize()
    assert not set(map(id, model.params)) & set(map(id, copied.params))


def test_recurrences_may_be_given_the_same_activation() -> None:
    relu = nn.ReLU()
    nn.Sequential(nn.RNN(3, relu, sequences=True), nn.RNN(3, relu), relu).build((4, 2)).initialize()


def test_two_parameters_of_one_name_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"Layer 0 \(Both\) has two parameters called 'weight', of shapes \(6, 4\) and"
    ):
        nn.Sequential(Both([nn.Dense(4), nn.Dense(3)])).build((6,))


def test_parameters_that_are_made_anew_by_every_call_are_refused() -> None:
    @dataclass(eq=False)
    class Forgetful(ReLU):
        def params(self) -> Sequence[nn.Param]:
            return [nn.Param("weight", (3,), nn.Constant(1.0), 1, 1)]

    with pytest.raises(ValueError, match=r"Layer 1 \(Forgetful\): params\(\) makes new parameters"):
        nn.Sequential(nn.Dense(3), Forgetful()).build((6,))


def test_a_class_with_a_name_of_ours_is_not_loaded_as_ours(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "model.safetensors"
    model = nn.Sequential(nn.Dense(4, init=HeNormal()), ReLU(0.2), nn.Dense(2)).build((6,)).initialize()
    dr.save_model(model, path)
    with pytest.raises(dr.CheckpointError, match=r"tests\.nn\.test_identity:HeNormal.*classes=\[\.\.\.\]"):
        dr.load_model(path)
    x = rng.standard_normal((5, 6), np.float32)
    for loaded in (dr.load_model(path, classes=[ReLU, HeNormal]), dr.load_model(path, model.blueprint())):
        assert repr(loaded) == repr(model)
        assert isinstance(loaded.layers[1], ReLU)
        assert (loaded.forward(x) == model.forward(x)).all()


def test_a_class_may_have_moved_to_another_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(ReLU, "__module__", "__main__")
        dr.save_model(nn.Sequential(ReLU(0.2)).build((6,)).initialize(), path)
    assert repr(dr.load_model(path, classes=[ReLU])) == "Sequential(ReLU(most=0.2), dtype='float32')"


@pytest.mark.parametrize(
    "other",
    [
        nn.Sequential(nn.Dense(4), nn.Tanh()),
        nn.Sequential(nn.Dense(4), ReLU()),
        nn.Sequential(nn.Dense(4, init=nn.Constant()), nn.ReLU()),
        nn.Sequential(nn.Dense(4)),
    ],
    ids=repr,
)
def test_a_file_fills_no_model_that_computes_something_else(tmp_path: Path, other: nn.Sequential) -> None:
    path = tmp_path / "model.safetensors"
    dr.save_model(nn.Sequential(nn.Dense(4), nn.ReLU()).build((6,)).initialize(), path)
    with pytest.raises(dr.CheckpointError, match="does not fit the model: "):
        dr.load_model(path, other)


def test_a_file_names_no_class_that_was_not_passed(tmp_path: Path) -> None:
    @dataclass(eq=False)
    class Local(ReLU):
        pass

    path = tmp_path / "model.safetensors"
    dr.save_model(nn.Sequential(Local()).build((6,)).initialize(), path)
    assert "tests.nn.test_identity" in sys.modules
    with pytest.raises(dr.CheckpointError, match="Local"):
        dr.load_model(path, classes=[ReLU])


def test_only_our_own_layers_have_plain_names_in_files() -> None:
    assert list(describe(nn.ReLU())) == ["ReLU"]
    assert list(describe(ReLU())) == ["tests.nn.test_identity:ReLU"]
    assert list(describe(dr.optim.Constant(0.1))) == ["dist_relu.optim.schedules:Constant"]


def test_a_parameter_belongs_to_one_layer() -> None:
    shared = nn.Param("weight", (6,), nn.Constant(1.0), 1, 1)

    @dataclass(eq=False)
    class Sharing(ReLU):
        def params(self) -> Sequence[nn.Param]:
            return [shared]

    with pytest.raises(ValueError, match=r"Layer 0 \(Sharing\): its parameter 'weight' is that of another layer"):
        nn.Sequential(Sharing(), Sharing()).build((6,))
    nn.Sequential(Sharing()).build((6,)).initialize()
    with pytest.raises(ValueError, match=r"or model too\. Make parameters in build"):
        nn.Sequential(Sharing()).build((6,))


def test_layers_whose_copies_would_be_others_are_refused() -> None:
    class Undecorated(ReLU):
        extra: float = 3.0

    @dataclass(eq=False)
    class WithoutField(ReLU):
        factor: InitVar[float] = 1.0

        def __post_init__(self, factor: float) -> None:
            self.kept = factor

    @dataclass(eq=False)
    class Doubling(ReLU):
        def __post_init__(self) -> None:
            self.most *= 2

    for layer in (Undecorated(), WithoutField(factor=5.0)):
        with pytest.raises(TypeError, match="is no dataclass"):
            nn.Sequential(layer)
    with pytest.raises(TypeError, match="Doubling can't be copied: its constructor makes another layer"):
        nn.Sequential(Doubling())


def test_a_model_from_memory_that_cannot_be_written_has_parameters_of_its_own() -> None:
    """So joblib loads what it has mapped into memory for several processes."""
    model = nn.mlp([4], 2).build((3,)).initialize(1)
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(model, 5, buffer_callback=buffers.append)
    loaded = pickle.loads(content, buffers=[bytes(buffer) for buffer in buffers])
    loaded.values = 2 * model.values
    assert (loaded.params[0].value == 2 * model.params[0].value).all()


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_model_has_parameters_of_its_own(make: Callable[[nn.Sequential], nn.Sequential]) -> None:
    model = nn.Sequential(nn.Dense(4)).build((6,)).initialize()
    before = model.sha256()
    copied = make(model)
    copied.values[...] = 0
    assert model.sha256() == before
    assert (copied.forward(np.ones((1, 6))) == 0).all()
    assert model.forward(np.ones((1, 6))).any()


def test_numbers_are_no_paths(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Dense(4)).build((6,)).initialize()
    for number in (1, True):
        with pytest.raises(TypeError, match=r"os\.PathLike"):
            dr.save_model(model, number)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"os\.PathLike"):
            dr.load_model(number)  # type: ignore[arg-type]
