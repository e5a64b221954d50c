"""States of runs as files: they come back as they were, and what is none, or not whole, is refused with the reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import dist_relu as dr
from dist_relu import nn, optim

RNG = np.random.default_rng(3)
X = RNG.standard_normal((70, 6)).astype("float32")
Y = RNG.integers(0, 3, 70)


class Remembers:
    """Remembers something, as callbacks may."""

    def __init__(self, remembered: Any) -> None:
        self._remembered = remembered

    def on_fit_end(self, trainer: dr.Trainer) -> None:
        pass

    def state(self) -> Any:
        return self._remembered


@pytest.fixture(scope="module")
def coordinator() -> Iterator[dr.Coordinator]:
    with dr.start(backend="serial") as started:
        yield started


def trainer_of(coordinator: dr.Coordinator, **options: Any) -> dr.Trainer:
    arguments = {"batch_size": 16, "shards": 4, "seed": 5, "ema_decay": 0.9, **options}
    return coordinator.trainer(nn.mlp((20,), 3), (X, Y), optim.Adam(0.01), **arguments)


@pytest.fixture(scope="module")
def state(coordinator: dr.Coordinator) -> dr.RunState:
    with trainer_of(coordinator) as trainer:
        trainer.lr_scale = 0.5
        trainer.fit(steps=7, validation=(X, Y), validate_every=2, callbacks=[Remembers({"best": 0.25})])
        return trainer.state()


@pytest.fixture
def path(state: dr.RunState, tmp_path: Path) -> Path:
    path = tmp_path / "step-7.safetensors"
    dr.save_state(state, path)
    return path


def test_a_state_comes_back_as_it_was(state: dr.RunState, path: Path) -> None:
    loaded = dr.load_state(path)
    assert loaded == state
    assert (loaded.digest, loaded.step, loaded.epoch, loaded.lr_scale) == (state.digest, 7, 1, 0.5)
    assert (loaded.records == state.records).all()
    assert loaded.validations == state.validations
    assert loaded.versions == state.versions
    assert loaded.callbacks == {"0.Remembers": {"best": 0.25}}


def test_the_same_state_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    dr.save_state(dr.load_state(path), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_run_goes_on_from_a_file_at_its_learning_rate(
    coordinator: dr.Coordinator, state: dr.RunState, path: Path
) -> None:
    with trainer_of(coordinator, state=state) as one, trainer_of(coordinator, state=dr.load_state(path)) as other:
        one.fit(steps=6)
        other.fit(steps=6)
        assert one.state().first_difference(other.state()) is None


def test_any_reader_of_safetensors_finds_vectors_by_the_names_of_parameters(state: dr.RunState, path: Path) -> None:
    tensors = load_file(path)
    assert (tensors["0.weight"].reshape(-1) == state.vectors[0, : 6 * 20]).all()
    assert (tensors["optimizer state 1/0.weight"].reshape(-1) == state.vectors[2, : 6 * 20]).all()
    assert tensors["average/2.bias"].shape == (3,)
    assert (tensors["steps/loss"] == state.losses).all()


def test_a_state_can_be_loaded_as_a_model(coordinator: dr.Coordinator, state: dr.RunState, path: Path) -> None:
    model = dr.load_model(path)
    assert model.sha256() == state.params_sha256
    assert model.predicts == "classes"
    assert dr.load_model(path, nn.mlp((20,), 3)).sha256() == state.params_sha256


def test_doubles_and_regression_come_back(coordinator: dr.Coordinator, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Dense(3), nn.ReLU(), nn.Dense(1), dtype="float64")
    data = X, X[:, :1] * 2 + 0.5
    with coordinator.trainer(model, data, optim.SGD(0.01), batch_size=16, shards=1) as trainer:
        trainer.fit(epochs=1, validation=data)
        state = trainer.state()
    dr.save_state(state, tmp_path / "state")
    loaded = dr.load_state(tmp_path / "state")
    assert loaded == state
    assert loaded.vectors.dtype == np.float64
    assert [validated["accuracy"] for validated in loaded.validations] == [None]
    assert dr.load_model(tmp_path / "state").predicts == "numbers"


def test_a_state_before_the_first_step_comes_back(coordinator: dr.Coordinator, tmp_path: Path) -> None:
    with trainer_of(coordinator) as trainer:
        dr.save_state(trainer.state(), tmp_path / "state")
        assert dr.load_state(tmp_path / "state") == trainer.state()


def remembered(coordinator: dr.Coordinator, value: Any) -> dr.RunState:
    with trainer_of(coordinator) as trainer:
        trainer.fit(steps=1, callbacks=[Remembers(value)])
        return trainer.state()


def test_what_callbacks_remember_comes_back(coordinator: dr.Coordinator, tmp_path: Path) -> None:
    arrays = [np.arange(6).reshape(2, 3).astype(kind) for kind in ("f8", ">f4", "i8", "u1", "?", "f2")]
    value = {"best": inf, "none": None, "text": "é\n", "deep": [1, [True, {"a": -0.5}]], "number": np.float32(0.5)}
    dr.save_state(remembered(coordinator, {**value, "arrays": arrays, "empty": np.empty((0, 3))}), tmp_path / "state")
    loaded = dr.load_state(tmp_path / "state").callbacks["0.Remembers"]
    assert {name: loaded[name] for name in value} == value
    assert loaded["empty"].shape == (0, 3)
    for mine, one in zip(loaded["arrays"], arrays, strict=True):
        assert mine.dtype == one.dtype.newbyteorder("<")
        assert (mine == one).all()


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": [1, object()]}, r"\['a'\]\[1\] is object; expected numbers"),
        ({1: 2}, r" is dict; expected numbers"),
        ({"a": np.array([1j])}, r"\['a'\] is ndarray; expected numbers"),
        ([[[[[[[[[[[[[]]]]]]]]]]]]], r"is nested deeper than 10 levels"),
        ("x" * 5_000_000, r"what callbacks remember take 5,\d{3},\d{3} bytes, which is more than 4,194,304"),
    ],
    ids=["object", "key", "complex", "deep", "long"],
)
def test_what_no_file_can_hold_is_named(coordinator: dr.Coordinator, tmp_path: Path, value: Any, where: str) -> None:
    with pytest.raises(ValueError, match=where):
        dr.save_state(remembered(coordinator, value), tmp_path / "state")
    assert list(tmp_path.iterdir()) == []


def with_header(content: bytes, change: Callable[[dict[str, Any]], object], *, seal: bool = True) -> bytes:
    """Change the header of a file; `seal` it with a right digest."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    change(header)
    meta = header["__metadata__"]
    if seal:
        del meta["header_sha256"]
        meta["header_sha256"] = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def with_run(content: bytes, **values: Any) -> bytes:
    def change(header: dict[str, Any]) -> None:
        meta = header["__metadata__"]
        meta["run"] = json.dumps({**json.loads(meta["run"]), **values})

    return with_header(content, change)


def with_format(content: bytes, name: str) -> bytes:
    return with_header(content, lambda header: header["__metadata__"].update(format=name), seal=False)


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda content: b"", "it ends after 0 of 8 bytes"),
    "another file": (lambda content: b"no checkpoint at all", "its header has .* bytes, which is more than 4,194,304"),
    "header of a size": (lambda content: b"\xff" * 8 + content[8:], "its header has 18,446,744,073,709,551,615 bytes"),
    "cut in the header": (lambda content: content[:100], "it ends after 92 of"),
    "cut in the tensors": (lambda content: content[:-100], "bytes of tensors in place of"),
    "lengthened": (lambda content: content + b"\0", "bytes of tensors in place of"),
    "a bit of a vector": (lambda content: content[:-5] + bytes([content[-5] ^ 1]) + content[-4:], "is damaged: .*tens"),
    "a letter of the header": (lambda content: content.replace(b"HeNormal", b"HeUnifor", 1), "is damaged: .*header"),
    "another name of a tensor": (lambda content: content.replace(b"steps/loss", b"steps/lass"), "are not those"),
    "newer": (lambda content: with_format(content, "dist_relu run 2"), "by a newer version of dist_relu, in format 2;"),
    "foreign": (lambda content: with_format(content, "pt"), "is no checkpoint: it is none of ours"),
    "negative": (lambda content: with_run(content, step=-1), "a number in it is negative"),
    "huge": (lambda content: with_run(content, step=10**18), "its tensors are not those that its header tells of"),
    "huge product": (
        lambda content: with_run(
            content, params={str(i): [1] for i in range(10**4)}, vector_names=list(map(str, range(10**4)))
        ),
        "it has 24 tensors in place of 100,000,008",
    ),
    "other data": (lambda content: with_run(content, settings={"seed": 1, "shards": 1}), "tell of other data"),
    "no seed": (lambda content: with_run(content, settings={}), "its settings have no seed"),
    "odd": (lambda content: with_run(content, versions=[1]), r"versions is \[1\]"),
    "not scaled": (lambda content: with_run(content, lr_scale=0), r"its learning rate is scaled by 0"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_no_whole_state_is_refused_with_file_and_reason(path: Path, kind: str) -> None:
    damage, reason = DAMAGE[kind]
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert path.read_bytes() != content
    with pytest.raises(dr.CheckpointError, match=rf"^{path}.*{reason}"):
        dr.load_state(path)


def test_a_model_is_no_state(tmp_path: Path) -> None:
    dr.save_model(nn.mlp((4,), 3).build((6,)).initialize(), tmp_path / "model")
    with pytest.raises(dr.CheckpointError, match="model is no checkpoint: it is a model, which load_model reads"):
        dr.load_state(tmp_path / "model")


def test_a_place_where_no_file_is_or_can_be_is_told(state: dr.RunState, tmp_path: Path) -> None:
    with pytest.raises(dr.CheckpointError, match="none can't be read as a checkpoint: No such file or directory"):
        dr.load_state(tmp_path / "none")
    with pytest.raises(dr.WriteError, match="does not exist or can't be written to"):
        dr.save_state(state, tmp_path / "none" / "state")
