"""CIFAR-10 by its name: found on this machine, or fetched, checked and unpacked."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dist_relu.data import load
from dist_relu.errors import DataError


def batch(num_rows: int) -> bytes:
    rows = np.random.default_rng(num_rows).integers(0, 256, (num_rows, 3073), np.uint8)
    rows[:, 0] = np.arange(num_rows) % 10
    return rows.tobytes()


FILES = {f"data_batch_{i}.bin": batch(10 + i) for i in range(1, 6)} | {"test_batch.bin": batch(10)}
FILES["batches.meta.txt"] = "\n".join("abcdefghij").encode()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server on this machine with a small archive of the form of CIFAR-10's, and an empty cache."""
    served = tmp_path / "served"
    served.mkdir()
    archive = served / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in FILES.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as started:
        thread = threading.Thread(target=started.serve_forever)
        thread.start()
        monkeypatch.setattr("dist_relu.data.downloads.CIFAR_SHA256", {archive.name: digest})
        monkeypatch.setattr("dist_relu.data.downloads.CIFAR_URL", f"http://127.0.0.1:{started.server_port}/")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv("DIST_RELU_DATA", raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield archive
        started.shutdown()
        thread.join()


def test_cifar_is_downloaded_once_and_unpacked(server: Path, tmp_path: Path) -> None:
    data = load("cifar10")
    assert (len(data.train), len(data.test), data.train.classes) == (65, 10, tuple("abcdefghij"))
    server.unlink()
    assert len(load("CIFAR10").test) == 10
    assert sorted(path.name for path in (tmp_path / "cache/dist_relu").iterdir()) == ["cifar-10-batches-bin"]


def test_an_archive_that_is_another_one_is_refused_and_not_kept(server: Path, tmp_path: Path) -> None:
    server.write_bytes(server.read_bytes() + b"x")
    with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz has SHA-256 [0-9a-f]{64}; expected"):
        load("cifar10")
    assert not list((tmp_path / "cache/dist_relu").iterdir())
    server.unlink()
    with pytest.raises(DataError, match=r"could not be downloaded from .*Unpack its binary version"):
        load("cifar10")


@pytest.mark.parametrize("below", ["cifar10", "cifar10/cifar-10-batches-bin", "cifar-10-batches-bin"])
def test_cifar_is_found_where_people_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str) -> None:
    (tmp_path / below).mkdir(parents=True)
    for name, content in FILES.items():
        (tmp_path / below / name).write_bytes(content)
    monkeypatch.setenv("DIST_RELU_DATA", str(tmp_path))
    assert len(load("cifar10").train) == 65
    assert len(load(tmp_path / below).train) == 65
