"""What a server of models makes of requests, and which model it serves; without Ray, which brings requests there."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.integrations.ray_serve.bodies import (
    Question,
    Refused,
    Reply,
    answer_of,
    inputs_of,
    outputs_of,
    refusal,
    samples_of,
)
from dist_relu.integrations.ray_serve.http import About, Service
from dist_relu.integrations.ray_serve.served_model import ModelSource, ServedModel
from tests.twin import Array

MOST_BYTES = 10_000


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints of a run, and a model of another kind."""
    folder = tmp_path_factory.mktemp("served")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 5)).astype("float32")
    with dr.start(backend="serial") as coordinator:
        model = nn.mlp((16,), 3)
        with coordinator.trainer(model, (x, np.arange(300) % 3), optim.SGD(0.1), batch_size=100, shards=2) as trainer:
            for _ in range(3):  # the end of each call is written, whatever else waits for the disk
                trainer.fit(epochs=1, callbacks=[dr.Checkpoint(folder / "run", best=None)])
        numbers = nn.Sequential(nn.Dense(2))
        coordinator.fit(numbers, (x, x[:, :2]), optim.SGD(0.1), epochs=1, batch_size=100, shards=2)
    dr.save_model(model, folder / "classes.safetensors")
    dr.save_model(numbers, folder / "numbers.safetensors")
    return folder


@pytest.fixture
def samples() -> Array:
    return np.random.default_rng(1).standard_normal((600, 5)).astype("float32")


class Client:
    """Asks a service as HTTP clients do."""

    def __init__(self, path: Path) -> None:
        self.source = ModelSource(path)
        service = Service("m", self._ask, self._about, MOST_BYTES)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            response = await service.respond(Request(scope, receive))
            await response(scope, receive, send)

        self._transport = httpx.ASGITransport(app)

    def ask(self, method: str, path: str, **content: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://here") as client:
                return await client.request(method, path, **content)

        return asyncio.run(ask())

    def post(self, path: str, **content: Any) -> httpx.Response:
        return self.ask("POST", path, **content)

    async def _ask(self, question: Question) -> Reply:
        served = self.source.current
        try:
            x = samples_of(question, served.model)
        except Refused as error:
            return refusal(error)
        media_type, content = answer_of(question, served.model, served.outputs(x), served.version, "m")
        return Reply(status=200, content=content, media_type=media_type, rows=len(x), version=served.version)

    async def _about(self) -> About:
        served = self.source.current
        return About(version=served.version, inputs=inputs_of(served.model), outputs=outputs_of(served.model))


@pytest.fixture(scope="module")
def client(trained: Path) -> Client:
    return Client(trained / "classes.safetensors")


def forward(path: Path, x: Array) -> Array:
    with dr.start(backend="serial") as coordinator:
        return coordinator.forward(dr.load_model(path), x)


def npy(x: Array) -> bytes:
    content = io.BytesIO()
    np.save(content, x)
    return content.getvalue()


def test_a_row_has_the_same_bits_whoever_is_in_its_batch(trained: Path, samples: Array) -> None:
    served = ServedModel.load(trained / "classes.safetensors")
    whole = served.outputs(samples)
    for size in (1, 2, 3, 7, 64, 255, 256, 257):
        parts = [served.outputs(samples[start : start + size]) for start in range(0, len(samples), size)]
        assert (np.concatenate(parts) == whole).all()
    assert (whole == forward(trained / "classes.safetensors", samples)).all()


@pytest.mark.parametrize(
    "model",
    [
        nn.cnn((8, 8, 1), 10),
        nn.resnet(8, (8, 8, 1), 10),
        nn.Sequential(nn.Dense(30), nn.BatchNorm(), nn.SwiGLU(), nn.LayerNorm(), nn.Dense(4)),
    ],
    ids=["cnn", "resnet", "norms"],
)
def test_so_have_rows_of_other_models(model: nn.Sequential, rng: np.random.Generator, tmp_path: Path) -> None:
    dr.save_model(model.build((64,)).initialize(1), tmp_path / "m.safetensors")
    served, x = ServedModel.load(tmp_path / "m.safetensors"), rng.standard_normal((20, 64)).astype("float32")
    one_by_one = np.concatenate([served.outputs(x[i : i + 1]) for i in range(len(x))])
    assert (served.outputs(x) == one_by_one).all()


def test_json_gets_classes_and_probabilities(client: Client, trained: Path, samples: Array) -> None:
    response = client.post("/predict", json={"instances": samples[:4].tolist()})
    outputs = forward(trained / "classes.safetensors", samples[:4])
    predictions = response.json()["predictions"]
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-model-version"] == dr.load_model(trained / "classes.safetensors").sha256()
    assert [one["class"] for one in predictions] == outputs.argmax(axis=1).tolist()
    probabilities = np.array([one["probabilities"] for one in predictions], "float32")
    assert (probabilities == dr.activations.softmax(outputs)).all()


def test_a_regression_gets_its_numbers(trained: Path, samples: Array) -> None:
    response = Client(trained / "numbers.safetensors").post("/predict", json={"instances": samples[:4].tolist()})
    predictions = np.array(response.json()["predictions"], "float32")
    assert (predictions == forward(trained / "numbers.safetensors", samples[:4])).all()


def test_classes_with_names_are_told_by_these(samples: Array, tmp_path: Path) -> None:
    names = np.array(["cat", "dog", "owl"])[np.arange(len(samples)) % 3]
    with dr.start(backend="serial") as coordinator:
        model = nn.mlp((8,), 3)
        coordinator.fit(model, dr.Dataset(samples, names), optim.SGD(0.1), epochs=1, batch_size=100, shards=2)
    dr.save_model(model, tmp_path / "m.safetensors")
    response = Client(tmp_path / "m.safetensors").post("/predict", json={"instances": samples[:5].tolist()})
    for one in response.json()["predictions"]:
        assert one["name"] == ("cat", "dog", "owl")[one["class"]]


def test_labels_are_told_each_for_itself(samples: Array, tmp_path: Path) -> None:
    labels = np.stack([samples[:, 0] > 0, samples[:, 1] > 0], axis=1).astype("float32")
    with dr.start(backend="serial") as coordinator:
        model = nn.mlp((8,), 2)
        coordinator.fit(
            model, (samples, labels), optim.SGD(0.1), epochs=1, batch_size=100, loss=nn.BinaryCrossEntropy()
        )
    dr.save_model(model, tmp_path / "m.safetensors")
    response = Client(tmp_path / "m.safetensors").post("/predict", json={"instances": samples[:5].tolist()})
    for one, outputs in zip(
        response.json()["predictions"], forward(tmp_path / "m.safetensors", samples[:5]), strict=True
    ):
        assert one["labels"] == (outputs > 0).astype(int).tolist()
        assert (np.float32(one["probabilities"]) == dr.activations.sigmoid(outputs)).all()


def test_an_array_gets_the_outputs_of_evaluate_to_the_bit(client: Client, trained: Path, samples: Array) -> None:
    response = client.post("/predict", content=npy(samples[:50]), headers={"content-type": "application/x-npy"})
    outputs = np.load(io.BytesIO(response.content))
    assert response.headers["content-type"] == "application/x-npy"
    assert (outputs == forward(trained / "classes.safetensors", samples[:50])).all()


def test_what_is_accepted_decides_the_form_of_the_answer(client: Client, samples: Array) -> None:
    as_json = client.post(
        "/predict",
        content=npy(samples[:1]),
        headers={"content-type": "application/x-npy", "accept": "application/json"},
    )
    as_npy = client.post("/predict", json={"instances": samples[:1].tolist()}, headers={"accept": "application/x-npy"})
    assert len(as_json.json()["predictions"]) == len(np.load(io.BytesIO(as_npy.content))) == 1


def test_the_paths_of_tensorflow_serving_are_there(client: Client, samples: Array) -> None:
    body = {"instances": samples[:2].tolist()}
    assert client.post("/v1/models/m:predict", json=body).json() == client.post("/predict", json=body).json()
    assert client.ask("GET", "/v1/models/m").json()["model_version_status"][0]["state"] == "AVAILABLE"


def test_the_open_inference_protocol_is_spoken(client: Client, trained: Path, samples: Array) -> None:
    tensor = {"name": "x", "shape": [2, 5], "datatype": "FP32", "data": samples[:2].reshape(-1).tolist()}
    answer = client.post("/v2/models/m/infer", json={"id": "7", "inputs": [tensor]}).json()
    outputs = {one["name"]: np.array(one["data"], "float32").reshape(one["shape"]) for one in answer["outputs"]}
    expected = forward(trained / "classes.safetensors", samples[:2])
    assert (answer["id"], answer["model_name"]) == ("7", "m")
    assert (outputs["outputs"] == expected).all()
    assert outputs["class"].tolist() == expected.argmax(axis=1).tolist()
    described = client.ask("GET", "/v2/models/m").json()
    assert described["inputs"] == [{"name": "inputs", "shape": [-1, 5], "datatype": "FP32"}]
    assert [one["name"] for one in described["outputs"]] == list(outputs)


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        ({"content": b"[1"}, 400, "The body is no JSON"),
        ({"content": b"[" * 9000}, 400, "nested too deep"),
        ({"content": b"\xff\xfe\x00"}, 400, "The body is no JSON"),
        ({"json": [1, 2]}, 400, "The body is a JSON list; expected an object"),
        ({"json": {"x": 1}}, 400, 'The body has no "instances"'),
        ({"json": {"instances": 3}}, 400, "instances is a JSON int; expected a list"),
        ({"json": {"instances": []}}, 400, "no samples"),
        ({"json": {"instances": [[1, 2]]}}, 400, "The samples have shape (2,); this model takes samples of shape (5,)"),
        ({"json": {"instances": [[1, 2], [1]]}}, 400, "lists of unequal lengths"),
        ({"json": {"instances": [["a", 1, 2, 3, 4]]}}, 400, "what are no numbers"),
        ({"json": {"instances": [[{}, 1, 2, 3, 4]]}}, 400, "what are no numbers"),
        ({"json": {"instances": [[None, 1, 2, 3, 4]]}}, 400, "none or infinite"),
        ({"content": b'{"instances": [[NaN, 1, 2, 3, 4]]}'}, 400, "none or infinite"),
        ({"content": b"text", "headers": {"content-type": "text/csv"}}, 415, "expected application/json or"),
        ({"content": b"text", "headers": {"content-type": "application/x-npy"}}, 400, "The body is no .npy file"),
        ({"content": b"", "headers": {"content-encoding": "gzip"}}, 415, "not compressed"),
        ({"content": b"1" * (MOST_BYTES + 1)}, 413, "more than 10,000 bytes"),
    ],
)  # fmt: skip
def test_what_can_not_be_answered_is_told(client: Client, content: dict[str, Any], status: int, message: str) -> None:
    response = client.post("/predict", **content)
    assert response.status_code == status
    assert message in response.json()["error"]


def test_arrays_of_objects_are_never_unpickled(client: Client) -> None:
    response = client.post(
        "/predict", content=npy(np.array([{}], dtype=object)), headers={"content-type": "application/x-npy"}
    )
    assert (response.status_code, "Python objects" in response.json()["error"]) == (400, True)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "Expected one tensor"),
        ([{"shape": [1, 5], "datatype": "FP32"}], 'inputs[0] has no "data"'),
        ([{"shape": [1, 5], "datatype": "FP32", "data": [1, 2]}], "inputs[0] has 2 numbers; its shape (1, 5) needs 5"),
        ([{"shape": [-1, 5], "datatype": "FP32", "data": [1] * 5}], "inputs[0].shape"),
        ([{"shape": [1, 5], "datatype": "BYTES", "data": [1] * 5}], "inputs[0].datatype is 'BYTES'"),
    ],
)
def test_tensors_that_are_none_are_told(client: Client, inputs: list[Any], message: str) -> None:
    response = client.post("/v2/models/m/infer", json={"inputs": inputs})
    assert (response.status_code, message in response.json()["error"]) == (400, True)


def test_a_body_without_an_announced_length_is_read_no_further_than_it_may_go(client: Client) -> None:
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1000
            yield b" " * 1000

    response = client.post("/predict", content=pieces())
    assert response.status_code == 413
    assert sent <= MOST_BYTES + 1000


@pytest.mark.parametrize(
    ("method", "path", "allowed"), [("GET", "/predict", "POST"), ("POST", "/healthz", "GET, HEAD")]
)
def test_other_methods_are_told_which_are_allowed(client: Client, method: str, path: str, allowed: str) -> None:
    response = client.ask(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)


def test_other_paths_are_told_what_there_is(client: Client) -> None:
    response = client.post("/v1/models/other:predict", json={})
    assert (response.status_code, "/v1/models/m:predict" in response.json()["error"]) == (404, True)


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/v2/models/m/ready", "/v2"]
)
def test_health_is_told(client: Client, path: str) -> None:
    assert client.ask("GET", path).status_code == 200


def test_what_was_asked_is_counted(trained: Path, samples: Array) -> None:
    client = Client(trained / "classes.safetensors")
    client.post("/predict", json={"instances": samples[:3].tolist()})
    client.post("/predict", json={})
    counts = client.ask("GET", "/metrics").text
    assert 'dist_relu_requests_total{status="200"} 1.0' in counts
    assert 'dist_relu_requests_total{status="400"} 1.0' in counts
    assert "dist_relu_rows_total 3.0" in counts
    assert "dist_relu_request_seconds_count 2.0" in counts


def settle(source: ModelSource) -> tuple[bool, list[str]]:
    """Look twice, as a server does after a while."""
    first, refused = source.refresh()
    second, refused_later = source.refresh()
    return first or second, [*refused, *refused_later]


def test_the_newest_checkpoint_of_a_folder_is_served(trained: Path, tmp_path: Path) -> None:
    checkpoints = sorted((trained / "run").iterdir())
    shutil.copy(checkpoints[0], tmp_path)
    source = ModelSource(tmp_path)
    assert source.current.version == dr.load_model(checkpoints[0]).sha256()
    for newer in checkpoints[1:]:
        shutil.copy(newer, tmp_path)
        assert settle(source) == (True, [])
        assert source.current.version == dr.load_model(newer).sha256()
    assert settle(source) == (False, [])


def test_a_newer_checkpoint_that_is_damaged_is_passed_over_once(trained: Path, tmp_path: Path) -> None:
    first, second, third = sorted((trained / "run").iterdir())
    shutil.copy(first, tmp_path)
    source = ModelSource(tmp_path)
    (tmp_path / third.name).write_bytes(third.read_bytes()[:-1])
    (is_newer, refused), again = settle(source), settle(source)
    assert (is_newer, again) == (False, (False, []))
    assert third.name in refused[0]
    shutil.copy(second, tmp_path)
    assert settle(source) == (True, [])
    assert source.current.version == dr.load_model(second).sha256()


def test_a_file_that_is_replaced_is_served_anew_once_it_is_settled(trained: Path, tmp_path: Path) -> None:
    first, second, _ = sorted((trained / "run").iterdir())
    path = tmp_path / "m.safetensors"
    shutil.copy(first, path)
    source = ModelSource(path)
    shutil.copy(second, tmp_path / "new")
    os.replace(tmp_path / "new", path)
    assert source.refresh() == (False, [])
    assert source.refresh() == (True, [])
    assert source.current.version == dr.load_model(second).sha256()


def test_another_model_in_its_place_is_refused(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    shutil.copy(trained / "classes.safetensors", path)
    source = ModelSource(path)
    version = source.current.version
    shutil.copy(trained / "numbers.safetensors", tmp_path / "new")
    os.replace(tmp_path / "new", path)
    is_newer, refused = settle(source)
    assert (is_newer, source.current.version) == (False, version)
    assert "has another model" in refused[0]


def test_a_file_that_is_gone_goes_on_being_served(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    shutil.copy(trained / "classes.safetensors", path)
    source = ModelSource(path)
    path.unlink()
    assert settle(source) == (False, [])


def test_nothing_to_serve_is_told(tmp_path: Path) -> None:
    with pytest.raises(dr.CheckpointError, match="holds neither a model nor a checkpoint"):
        ModelSource(tmp_path)
    (tmp_path / "m.safetensors").write_text(json.dumps({}))
    with pytest.raises(dr.CheckpointError, match=r"m\.safetensors"):
        ModelSource(tmp_path / "m.safetensors")
