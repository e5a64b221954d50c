"""Files are written whole or not at all, and only where a file may be."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import re
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from math import nan
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import dist_relu as dr
from dist_relu.core import files
from dist_relu.core.files import check_writable, write_file, write_json
from tests.cases import long


@pytest.fixture
def plain_umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_has_the_mode_of_the_umask_and_an_old_one_keeps_its_own(tmp_path: Path, plain_umask: None) -> None:
    path = tmp_path / "file"
    write_file(path, "new")
    assert (path.read_text(), mode(path)) == ("new", 0o640)
    path.chmod(0o604)
    write_file(path, b"other")
    assert (path.read_text(), mode(path)) == ("other", 0o604)


def test_a_file_takes_a_name_of_any_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("m", "n" * 255, "ü" * 127):
        write_file(name, name)
        assert Path(name).read_text() == name
    for call in (check_writable, lambda path: write_file(path, "")):
        with pytest.raises(dr.WriteError, match=r"nn can't be written: File name too long\.$"):
            call("n" * 256)


def test_links_stay_and_what_they_lead_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target, link, far = tmp_path / "folder" / "target", tmp_path / "link", tmp_path / "far"
    link.symlink_to("folder/target")
    far.symlink_to(link)
    for content in ("where nothing was", "where something was"):
        write_file(far, content)
        assert target.read_text() == content
        assert far.is_symlink()
        assert link.is_symlink()
    assert os.listdir(tmp_path / "folder") == ["target"]
    link.unlink()
    link.symlink_to(far)
    with pytest.raises(dr.WriteError, match="can't be written: Too many levels of symbolic links"):
        write_file(far, "")


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    write_file(path, b"x" * 100_000)
    reader.join()
    assert read == [b"x" * 100_000]
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_device_is_written_into(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/dev/null")
    for path in (Path("/dev/null"), link):
        check_writable(path)
        write_file(path, "nothing stays")
        assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(dr.WriteError, match=r"/dev/full can't be written: No space left on device\.$"):
        write_file("/dev/full", "x")


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_standard_output_is_written_into(tmp_path: Path, kind: str) -> None:
    code = "import dist_relu.core.files as f; print('a'); f.write_file('/dev/stdout', 'b\\n'); print('c')"
    if kind == "file":
        with open(tmp_path / "file", "w") as file:
            subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
        output = (tmp_path / "file").read_text()
    else:
        output = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert output == "a\nb\nc\n"


def test_where_no_file_can_be_the_error_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, why in (
        (tmp_path, "it is a folder"),
        (tmp_path / "none" / "file", f"the folder {tmp_path}/none does not exist or can't be written to"),
        (tmp_path / "file" / "file", f"the folder {tmp_path}/file does not exist or can't be written to"),
    ):
        for call in (check_writable, lambda path: write_file(path, "")):
            with pytest.raises(dr.WriteError, match=f"^{path} can't be written: {why}.$"):
                call(path)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_a_name_that_no_file_can_have_is_told(name: str) -> None:
    for call in (check_writable, lambda path: write_file(path, "")):
        with pytest.raises(dr.WriteError, match=f"^{re.escape(repr(name))} can't be written: .*\\.$"):
            call(name)


def test_a_file_that_nothing_may_replace_is_written_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old and longer")

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", str(target))

    monkeypatch.setattr(os, "replace", refuse)
    before = path.stat().st_ino
    write_file(path, "new")
    assert (path.read_text(), path.stat().st_ino) == ("new", before)
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_is_written_though_its_folder_can_not_be_made_to_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def refuse_folders(number: int) -> None:
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(number)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    write_file(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


def without_unnamed_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let file systems have none, as some don't."""
    plain = os.open

    def refuse(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return plain(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)


@pytest.mark.filterwarnings("ignore:.*unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("before", ["old", None])
@pytest.mark.parametrize("has_unnamed_files", [True, *long(False)])
def test_an_interruption_between_any_two_instructions_leaves_one_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_unnamed_files: bool, before: str | None
) -> None:
    if not has_unnamed_files:
        without_unnamed_files(monkeypatch)
    path, left, seen = tmp_path / "file", 0, set()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != files.__file__:
            return None
        frame.f_trace_opcodes = True
        left -= event == "opcode"
        if left == 0 and event == "opcode":
            raise KeyboardInterrupt
        return trace

    for number in itertools.count(1):
        path.unlink(missing_ok=True)
        if before:
            path.write_text(before)
        left = number
        tracing = sys.gettrace()
        sys.settrace(trace)
        try:
            write_file(path, "new")
        except KeyboardInterrupt:
            seen.add(path.read_text() if path.exists() else None)
        else:
            break
        finally:
            sys.settrace(tracing)
        assert set(os.listdir(tmp_path)) <= {"file"}
    gc.collect()  # of files that interruptions left open: later, other tests would be told of them
    assert seen == {before, "new"}


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_json(path, {"old": nan})
    assert path.read_text() == '{\n  "old": null\n}\n'
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, room[1]))  # no file may be larger than a byte
    try:
        with pytest.raises(dr.WriteError, match=f"^{path} can't be written: File too large.$"):
            write_file(path, "new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, room)
    assert path.read_text() == '{\n  "old": null\n}\n'
    assert os.listdir(tmp_path) == ["file"]
