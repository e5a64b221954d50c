"""The names under which sets of IDX files lie in folders."""

from __future__ import annotations

import re
from pathlib import Path

from dist_relu.errors import DataError

_NAME = re.compile(
    r"(?P<set>.*?)-?(?P<part>train|t10k|test)-(?P<kind>images|labels)[-.]idx\d[-.]\w+?(?P<packed>\.gz)?", re.ASCII
)

Files = dict[tuple[str, str], Path]
"""The files of a set, by their part, train or test, and by what they hold, images or labels."""


def find_files(folder: Path, name: str | None = None) -> Files:
    """The four IDX files in a folder, or in the `raw` folder below it that torchvision makes.

    They are named as those of MNIST, with a dash or a dot before idx, plain or gzipped; or as those of EMNIST, with the
    name of a set before that, which must be told where there are several.  Raises `DataError`.
    """
    for place in _places(folder):
        sets = find_sets(place)
        if name is None and len(sets) > 1:
            names = ", ".join(sorted(each or "train..." for each in sets))
            raise DataError(
                f"{place} holds several data sets: {names}. Say which, as {place / min(filter(None, sets))}."
            )
        if sets and (name is None or name in sets):
            return _whole_set(place, *((name, sets[name]) if name is not None else next(iter(sets.items()))))
    return _whole_set(folder, "", {})


def holds_sets(folder: Path) -> bool:
    """Whether there are IDX files in a folder, or where torchvision puts them below it."""
    return any(map(find_sets, _places(folder)))


def find_sets(folder: Path) -> dict[str, Files]:
    """The IDX files in a folder, by the name of their set, which is empty for those of MNIST; plain before gzipped."""
    sets: dict[str, Files] = {}
    found = [(match, path) for path in folder.glob("*idx*") if (match := _NAME.fullmatch(path.name)) and path.is_file()]
    for match, path in sorted(found, key=lambda one: (not one[0]["packed"], one[1].name)):
        part = "train" if match["part"] == "train" else "test"
        sets.setdefault(match["set"], {})[part, match["kind"]] = path
    return sets


def _places(folder: Path) -> list[Path]:
    return [folder, folder / "raw", *sorted(folder.glob("*/raw"))]


def _whole_set(folder: Path, name: str, files: Files) -> Files:
    for part, prefix in (("train", "train"), ("test", "test" if name else "t10k")):
        for kind, axes in (("images", 3), ("labels", 1)):
            if (part, kind) not in files:
                missing = f"{name}{'-' if name else ''}{prefix}-{kind}-idx{axes}-ubyte"
                raise DataError(f"{folder} has no file {missing} or {missing}.gz.")
    return files
