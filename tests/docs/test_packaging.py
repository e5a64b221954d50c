"""The package, its versions, its hooks and its workflow are what the documents say of them."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import yaml

from tests.programs import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()


def names(requirements: list[str]) -> set[str]:
    found = {re.split(r"[<>=\[]", requirement)[0].lower() for requirement in requirements}
    return found - {"dist_relu"}


def test_every_package_that_users_and_tests_need_has_an_exact_version() -> None:
    extras = PROJECT["optional-dependencies"]
    needed = names(PROJECT["dependencies"]) | names(extras["all"]) | names(extras["test"])
    for extra in re.findall(r"\w+", extras["all"][0].partition("[")[2]):
        needed |= names(extras[extra])
    exact = set(re.findall(r"^([\w-]+)==\d[\w.]*$", CONSTRAINTS, re.MULTILINE))
    assert needed <= exact
    assert {"numpy", "numba", "llvmlite"} <= exact  # what the bits depend on


def test_the_licences_are_the_files_that_are_there() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    ours, of_the_digits = ((ROOT / name).read_text() for name in PROJECT["license-files"])
    assert ours.split()[:2] == ["Apache", "License"]
    assert "The scikit-learn developers" in of_the_digits


def test_the_workflow_runs_what_anybody_can_run() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert [step["run"] for step in workflow["jobs"]["run"]["steps"] if "run" in step] == [".ci/run"]


def test_hooks_run_the_tools_of_make_check_and_fetch_nothing() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    check = re.search(r"^check: setup\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert check is not None
    tools = re.findall(r"\$\(BIN\)/([\w-]+)", check[1])
    assert [hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in repository["hooks"]] == tools
