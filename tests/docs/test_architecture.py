"""What ARCHITECTURE.md says is so: the tree, the layers, the public names."""

from __future__ import annotations

import importlib
import re
import tomllib

import pytest

from tests.docs.markdown import blocks
from tests.programs import ROOT

PACKAGE = ROOT / "dist_relu"
BLOCKS = [block.text for block in blocks(ROOT / "ARCHITECTURE.md")]


def block_that_begins(first_line: str) -> list[str]:
    (text,) = [text for text in BLOCKS if text.startswith(first_line)]
    return text.splitlines()


def paths_of_the_tree() -> set[str]:
    """Every path of the tree, from indented names; storeys and empty lines left out."""
    paths: set[str] = set()
    folders: list[str] = []
    for line in block_that_begins("dist_relu/\n")[1:]:
        if entry := re.match(r"( +)(\w+(?:\.py|/))  ", line):
            depth = len(entry[1]) // 2
            folders = [*folders[: depth - 1], entry[2]]
            paths.add("".join(folders))
    return paths


def test_every_module_stands_in_the_tree() -> None:
    modules = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}
    packages = {name.removesuffix("__init__.py") for name in modules if name.endswith("/__init__.py")}
    assert paths_of_the_tree() == {name for name in modules if not name.endswith("/__init__.py")} | packages


def test_the_layers_are_those_that_are_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    assert block_that_begins("__main__\n") == layers


def public_names() -> dict[str, list[str]]:
    """The names of each public module, by the module."""
    listed: dict[str, list[str]] = {}
    for line in block_that_begins("dist_relu\n"):
        if line.startswith(" "):
            listed[list(listed)[-1]].extend(line.split())
        else:
            listed[line] = []
    return listed


@pytest.mark.parametrize("module", public_names())
def test_public_names_are_those_that_modules_export(module: str) -> None:
    content = importlib.import_module(module)
    assert sorted(public_names()[module]) == sorted(content.__all__)
    assert [name for name in content.__all__ if not hasattr(content, name)] == []
