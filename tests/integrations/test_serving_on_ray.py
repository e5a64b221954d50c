"""`dist-relu serve` as users run it, with replicas on Ray."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from tests.programs import TIMEOUT_S, processes_with, wait_until
from tests.ray_clusters import RayCluster, environment, temporary_folder
from tests.runtime.test_ray import lines_until, python, running
from tests.twin import Array

pytestmark = pytest.mark.long

SERVE = [sys.executable, "-u", "-m", "dist_relu", "serve"]
MARK = f"serving {os.getpid()}"


@dataclass(frozen=True)
class Serving:
    """A server that runs, of the model in a file.  outputs: of each version, for `samples`."""

    url: str
    path: Path
    samples: Array
    outputs: dict[str, Array]
    versions: list[Path]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("serving")
    samples = np.random.default_rng(0).standard_normal((40, 20)).astype("float32")
    versions, outputs = [folder / "1.safetensors", folder / "2.safetensors"], {}
    for seed, path in enumerate(versions):
        model = nn.mlp((32,), 4).build((20,)).initialize(seed)
        dr.save_model(model, path)
        with dr.start(backend="serial") as coordinator:
            outputs[model.sha256()] = coordinator.forward(model, samples)
    path = folder / "model.safetensors"
    shutil.copy(versions[0], path)
    with temporary_folder() as home:
        variables = environment(home, DIST_RELU_TEST_MARK=MARK)
        with running([*SERVE, str(path), "--port", "0", "--replicas", "2"], variables) as process:
            line = lines_until(process, "Serving")[-1]
            found = re.search(r"http://[\d.]+:\d+", line)
            assert found is not None
            yield Serving(found[0], path, samples, outputs, versions)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=TIMEOUT_S)
            assert process.returncode == 143
            assert "interrupted; all that had been asked was answered." in errors
            wait_until(lambda: processes_with(MARK) == [])


def as_npy(x: Array) -> bytes:
    content = io.BytesIO()
    np.save(content, x)
    return content.getvalue()


class Clients:
    """Many clients that ask for different rows until they are told to stop; every answer must be right."""

    def __init__(self, serving: Serving, clients: int) -> None:
        self.serving, self.enough = serving, threading.Event()
        self.wrong: list[str] = []
        self.versions: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: len(self.versions) > 20 or bool(self.wrong))
        return self

    def __exit__(self, *_: object) -> None:
        self.enough.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        try:
            self._ask_on(np.random.default_rng(number))
        except Exception as error:
            self.wrong.append(repr(error))

    def _ask_on(self, rng: np.random.Generator) -> None:
        with httpx.Client(base_url=self.serving.url, timeout=60) as client:
            while not self.enough.is_set() and not self.wrong:
                rows = rng.choice(len(self.serving.samples), size=rng.integers(1, 9))
                content = as_npy(self.serving.samples[rows])
                response = client.post("/predict", content=content, headers={"content-type": "application/x-npy"})
                if response.status_code != 200:
                    self.wrong.append(response.text)
                    return
                version = response.headers["x-model-version"]
                if (np.load(io.BytesIO(response.content)) != self.serving.outputs[version][rows]).any():
                    self.wrong.append(f"other bits of version {version}")
                self.versions.append(version)


def test_whoever_shares_a_batch_gets_the_bits_of_forward(serving: Serving) -> None:
    with Clients(serving, 10) as clients:
        wait_until(lambda: len(clients.versions) > 200 or bool(clients.wrong))
    assert clients.wrong == []
    batches = re.findall(
        r'dist_relu_batch_rows_bucket\{le="8.0"\} ([\d.]+)|batch_rows_count ([\d.]+)',
        httpx.get(f"{serving.url}/metrics").text,
    )
    (up_to_8, _), (_, all_batches) = batches
    assert float(up_to_8) < float(all_batches), "some requests have shared a batch"


def test_no_request_is_lost_when_the_model_is_replaced(serving: Serving) -> None:
    before = httpx.get(f"{serving.url}/readyz").headers["x-model-version"]
    (other,) = serving.outputs.keys() - {before}
    source = serving.versions[list(serving.outputs).index(other)]
    with Clients(serving, 10) as clients:
        shutil.copy(source, serving.path.with_suffix(".new"))
        os.replace(serving.path.with_suffix(".new"), serving.path)
        wait_until(lambda: set(clients.versions[-40:]) == {other} or bool(clients.wrong))
    assert clients.wrong == []
    assert set(clients.versions) == {before, other}


def test_no_request_is_lost_when_a_replica_is_killed(serving: Serving) -> None:
    replicas = [
        pid for pid in processes_with(MARK) if b"ray::ServeReplica" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(replicas) == 2
    with Clients(serving, 10) as clients:
        os.kill(replicas[0], signal.SIGKILL)
        asked = len(clients.versions)
        wait_until(lambda: len(clients.versions) > asked + 100 or bool(clients.wrong))
    assert clients.wrong == []


def test_a_port_that_is_taken_is_told_before_anything_starts(serving: Serving) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [*SERVE, str(serving.path), "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 1
    assert f"127.0.0.1:{port} can't be listened to: Address already in use" in done.stderr


IN_A_CLUSTER = """
import io, sys, httpx, numpy as np, ray
from ray import serve
import dist_relu as dr
from dist_relu import nn
from dist_relu.integrations import ray_serve
model = nn.mlp((32,), 4).build((20,)).initialize(0)
dr.save_model(model, sys.argv[1])
x = np.random.default_rng(0).standard_normal((40, 20)).astype("float32")
with dr.start(backend="serial") as coordinator:
    outputs = coordinator.forward(model, x)
ray.init(log_to_driver=False)
serve.start(http_options={"port": int(sys.argv[2])}, logging_config={"log_level": "ERROR"})
handle = serve.run(ray_serve.from_config({"path": sys.argv[1], "replicas": 1}), logging_config={"log_level": "ERROR"})
print("handle", (handle.predict.remote(x).result() == outputs).all())
content = io.BytesIO()
np.save(content, x)
kind = {"content-type": "application/x-npy"}
response = httpx.post(f"http://127.0.0.1:{sys.argv[2]}/predict", content=content.getvalue(), headers=kind)
print("http", (np.load(io.BytesIO(response.content)) == outputs).all())
print("refused", httpx.post(f"http://127.0.0.1:{sys.argv[2]}/predict", content=b"x" * 2**24).status_code)
serve.shutdown()
"""


@pytest.mark.chaos
def test_an_application_runs_in_ray_serve_as_others_do(ray_cluster: RayCluster, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = f"import sys; sys.argv = ['', {str(tmp_path / 'm.safetensors')!r}, '{port}']\n{IN_A_CLUSTER}"
    done = python(code, ray_cluster.environment)
    assert "handle True\nhttp True\nrefused 413\n" in done.stdout, done.stderr
