"""What ARCHITECTURE.md says is so: the tree, the layers, the public names."""

from __future__ import annotations

import ast
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
    names = {name for name in modules if not name.endswith("/__init__.py")} | packages
    tree = paths_of_the_tree()
    assert sorted(names - tree) == [], "modules that the tree in ARCHITECTURE.md lacks"
    assert sorted(tree - names) == [], "what stands in the tree in ARCHITECTURE.md and is gone"


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
    """It is read rather than imported, since that imports optional packages into the process of all tests."""
    path = ROOT / {"dist_relu": "dist_relu/public"}.get(module, module.replace(".", "/"))
    content = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())
    (exported,) = [
        ast.literal_eval(statement.value)
        for statement in content.body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__"
    ]
    listed = set(public_names()[module])
    assert sorted(set(exported) - listed) == [], "names that Public names in ARCHITECTURE.md lacks"
    assert sorted(listed - set(exported)) == [], "names in ARCHITECTURE.md that nobody exports"


@pytest.mark.parametrize("module", [module for module in public_names() if "ray" not in module])
def test_whatever_is_exported_is_there(module: str) -> None:
    content = importlib.import_module(module)
    assert [name for name in content.__all__ if not hasattr(content, name)] == []
