"""The one place that writes files: whole, or not at all.

Under its name a file is always the one before or the new one, whatever interrupts the writing. What is no regular file
(a pipe, a device, /dev/stdout) is written into and stays what it is, and so is a file that the system lets nothing
replace, such as one that is mounted into a container.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO, final

from dist_relu.errors import WriteError


def write_file(path: str | Path, content: str | bytes | memoryview) -> None:
    """Write a file, in place of the one of that name.  Raises `WriteError`; then that one is as it was before.

    A file that was there leaves its owner and mode to the new one. A symbolic link stays, and what it leads to is
    replaced. Text becomes UTF-8.
    """
    write_pieces(path, [content.encode(errors="replace") if isinstance(content, str) else content])


def write_pieces(path: str | Path, pieces: Sequence[bytes | memoryview]) -> None:
    """Do what `write_file` does, with content that comes in pieces, so that nobody has to join large ones."""
    os.fspath(path)  # a number would be that of an open file
    with _explained(path):
        place = _place(path)
        before = None if isinstance(place, int) else _status(place)
        if isinstance(place, int) or (before and not stat.S_ISREG(before.st_mode)):
            _write_into(place, pieces)
        else:
            _replace(place, before, pieces)


def write_json(path: str | Path, content: Any) -> None:
    """Write strict JSON: NaN and infinities become null.  Raises `WriteError`."""
    write_file(path, json.dumps(strict(content), indent=2, allow_nan=False) + "\n")


def append_to_file(path: str | Path, text: str) -> None:
    """Add to the end of a file, in one go.  Raises `WriteError`; then a part of it may be there."""
    with _explained(path), open(path, "ab", buffering=0) as file:
        written, data = 0, text.encode()
        while written < len(data):
            written += file.write(data[written:])


def check_writable(path: str | Path) -> None:
    """Raise `WriteError` where `write_file` would, as far as that can be known before."""
    with _explained(path):
        place = _place(path)
        if isinstance(place, int):
            return
        before = _status(place)
        if (not before or stat.S_ISREG(before.st_mode)) and not os.access(place.parent, os.W_OK | os.X_OK):
            raise PermissionError(_no_folder(place.parent))


def make_folder(folder: str | Path) -> None:
    """Make a folder, and those above it, where there is none.  Raises `WriteError` unless it then takes files."""
    with _explained(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError("it takes no files")


@final
class Attempts:
    """Writing while other work goes on: what fails is told once a file, and all of it makes `check` fail in the end.

    failed: the files, with what was told of each.
    """

    def __init__(self, tell: Callable[[str], object]) -> None:
        self.tell = tell
        self.failed: dict[Path, str] = {}

    @contextlib.contextmanager
    def writing(self, path: str | Path) -> Iterator[None]:
        """Go on after this block when it raises `WriteError`."""
        try:
            yield
        except WriteError as error:
            if Path(path) not in self.failed:
                self.failed[Path(path)] = str(error)
                self.tell(str(error))

    def check(self) -> None:
        """Raise `WriteError` if something was not written."""
        if self.failed:
            raise WriteError(f"Not written, or not whole: {', '.join(map(str, self.failed))}.")


@final
class GrowingFile:
    """A file that grows by records, each of which is in it at once.  Raises `WriteError`.

    A record that has no room leaves nothing of itself, so that later ones may follow.  keeps: what it holds already.
    """

    def __init__(self, path: Path, *, keeps: bool = False) -> None:
        self._path = path
        with _explained(path):
            self._file = open(path, "ab" if keeps else "wb", buffering=0)  # noqa: SIM115

    def write(self, record: bytes) -> None:
        """Write a record at the end."""
        with _explained(self._path):
            end = self._file.tell()
            try:
                written = 0
                while written < len(record):
                    written += self._file.write(record[written:])
            except BaseException:
                with contextlib.suppress(OSError):
                    self._file.truncate(end)
                    self._file.seek(end)
                raise

    def close(self) -> None:
        """Raises `WriteError` also when the file is not there any more."""
        with _explained(self._path), self._file:
            if not os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno())):
                raise FileNotFoundError("another file has taken its place")


def strict(value: Any) -> Any:
    """`value` with None for every number that JSON does not have."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return value


@contextlib.contextmanager
def _explained(path: str | Path) -> Iterator[None]:
    """Raise `WriteError` for what the system or a check of ours says of a file."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path} can't be written: {error.strerror or error}.") from error
    except ValueError as error:  # of a name that no file can have
        raise WriteError(f"{str(path)!r} can't be written: {error}.") from error


def _place(path: str | Path) -> Path | int:
    """Where symbolic links lead; the number of an open file for one of this process's own, such as /dev/stdout.

    Raises OSError where no file can be, or this one may not be written to.
    """
    before = _status(path)
    place = Path(path).absolute()
    while place.is_symlink():  # it ends: `_status` went the same way
        folder = os.path.realpath(place.parent)
        if folder == f"/proc/{os.getpid()}/fd":
            return int(place.name)
        place = Path(folder, os.readlink(place))
    if before is None and not place.parent.is_dir():
        raise FileNotFoundError(_no_folder(place.parent))
    if before and stat.S_ISDIR(before.st_mode):
        raise IsADirectoryError("it is a folder")
    if before and not os.access(place, os.W_OK):
        raise PermissionError("it may not be written to")
    return place


def _no_folder(folder: Path) -> str:
    return f"the folder {folder} does not exist or can't be written to"


def _status(path: str | Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write_into(place: Path | int, pieces: Iterable[bytes | memoryview]) -> None:
    if place == 1:
        sys.stdout.flush()  # what was printed before comes before it
    with open(place, "wb", closefd=not isinstance(place, int)) as file:
        file.writelines(pieces)


def _replace(path: Path, before: os.stat_result | None, pieces: Sequence[bytes | memoryview]) -> None:
    """Write a file under no name, or where the file system has no such files under a temporary one, and then name it.

    before: the file that it replaces.
    """
    temporary = path.parent / f".dist_relu-{secrets.token_hex(8)}"  # short: `path` may be as long as a name can get
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with _unnamed(path.parent) or open(temporary, "xb") as file:
            file.writelines(pieces)
            file.flush()
            if before:
                with contextlib.suppress(PermissionError):
                    os.chown(file.fileno(), before.st_uid, before.st_gid)
                os.chmod(file.fileno(), stat.S_IMODE(before.st_mode))
            os.fsync(file.fileno())
            if temporary.exists() or before or not _named(file, path.name, folder):
                if not temporary.exists():
                    _named(file, temporary.name, folder)
                _rename(temporary, path, pieces)  # at once: only a kill between these two leaves a temporary file
        _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):  # it has its right name
            os.unlink(temporary)
        os.close(folder)


def _named(file: BinaryIO, name: str, folder: int) -> bool:
    """Give a file that has none a name; False where there is one of that name."""
    try:
        os.link(f"/proc/self/fd/{file.fileno()}", name, dst_dir_fd=folder)
    except FileExistsError:
        return False
    return True


def _rename(temporary: Path, path: Path, pieces: Sequence[bytes | memoryview]) -> None:
    try:
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EPERM):
            raise
        _write_into(path, pieces)  # a file that is mounted by itself, or another user's in a folder such as /tmp


def _sync(folder: Path) -> None:
    """Let a name in a folder outlast a loss of power: where that can't be, the file is there all the same."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _unnamed(folder: Path) -> BinaryIO | None:
    """A new file in `folder` of which nothing stays if this process ends; None where the file system has none."""
    try:
        return open(folder, "wb", opener=lambda path, _: os.open(path, os.O_TMPFILE | os.O_WRONLY, 0o666))
    except OSError:
        return None
