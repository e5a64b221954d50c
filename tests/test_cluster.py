"""The files that start clusters promise what their README says.  `make check-cluster` checks more."""

from __future__ import annotations

import inspect
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dist_relu.integrations.ray_serve import application

ROOT = Path(__file__).parent.parent
CLUSTER = ROOT / "cluster"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
MANIFESTS = sorted((CLUSTER / "kubernetes").glob("*.yaml"))
SCRIPTS = sorted([*CLUSTER.rglob("*.sh"), *CLUSTER.rglob("*.sbatch")])
STARTS_OF_RAY = [CLUSTER / "Dockerfile", CLUSTER / "slurm" / "ray.sbatch", CLUSTER / "ray" / "launcher.yaml"]

RAY_SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound_shell_and_stop_at_errors(script: Path) -> None:
    first = script.read_text().splitlines()[0]
    assert first in ("#!/bin/sh", "#!/bin/bash")
    subprocess.run([first.removeprefix("#!"), "-n", str(script)], check=True)
    if script.name != "known_hosts.sh":
        assert re.search(r"^set -eu", script.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", STARTS_OF_RAY, ids=lambda path: path.name)
def test_ray_has_the_same_settings_wherever_it_starts(path: Path) -> None:
    settings = re.findall(r"\b(RAY_\w+)=([^\s\\;]+)", path.read_text())
    for name, value in RAY_SETTINGS.items():
        assert {found for found_name, found in settings if found_name == name} == {value}, name


@pytest.mark.parametrize("name", SERVICES)
def test_services_have_no_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "user", "network_mode", "cap_add", "pid", "ipc", "devices"} & service.keys()


def test_only_the_dashboard_and_the_served_model_are_to_be_reached_and_from_this_machine_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:8265:8265", "127.0.0.1:8000:8000"]


def test_services_that_stay_have_health_checks_and_room_in_dev_shm() -> None:
    for name in ("ray-head", "worker", "serve", "mpi-node"):
        assert SERVICES[name]["healthcheck"]["test"]
        assert SERVICES[name]["shm_size"] in ("1g", "2g")


def test_the_image_does_not_run_as_root() -> None:
    instructions = [line.split() for line in (CLUSTER / "Dockerfile").read_text().splitlines()]
    assert [words[1] for words in instructions if words[:1] == ["USER"]] == ["relu"]
    assert [words[1] for words in instructions if words[:1] == ["FROM"]] == ["python:3.11-slim"]


def test_the_image_is_given_all_that_the_package_is_built_from() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    modules = [f"{name}.py" for name in project["tool"]["setuptools"]["py-modules"]]
    needed = {
        "pyproject.toml",
        "dist_relu",
        project["project"]["readme"],
        *(name for name in project["project"]["license-files"] if not name.startswith("dist_relu/")),
        *modules,
    }
    instructions = [line.split() for line in (CLUSTER / "Dockerfile").read_text().splitlines()]
    assert needed <= {source for words in instructions if words[:1] == ["COPY"] for source in words[1:-1]}
    assert {f"!{name}" for name in needed} <= set((ROOT / ".dockerignore").read_text().splitlines())


def pods(content: Any) -> Iterator[dict[str, Any]]:
    if isinstance(content, list):
        for item in content:
            yield from pods(item)
    elif isinstance(content, dict):
        for name, item in content.items():
            if name == "template":
                yield item["spec"]
            else:
                yield from pods(item)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_pods_have_no_privileges_and_limits_equal_to_requests(path: Path) -> None:
    found = list(pods(yaml.safe_load(path.read_text())))
    assert len(found) == 2
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert container["image"] == "dist_relu:latest"
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["resources"]["requests"] == container["resources"]["limits"]


@pytest.mark.parametrize("name", ["rayjob.yaml", "raycluster.yaml", "rayservice.yaml"])
def test_ray_on_kubernetes_lets_in_only_who_has_the_token(name: str) -> None:
    spec = yaml.safe_load((CLUSTER / "kubernetes" / name).read_text())["spec"]
    cluster = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    assert cluster["authOptions"] == {"mode": "token"}


def test_what_is_served_on_kubernetes_is_an_application_of_ours() -> None:
    spec = yaml.safe_load((CLUSTER / "kubernetes" / "rayservice.yaml").read_text())["spec"]
    (served,) = yaml.safe_load(spec["serveConfigV2"])["applications"]
    assert served["import_path"] == "dist_relu.integrations.ray_serve:from_config"
    inspect.signature(application).bind(**served["args"])


def test_the_readme_names_every_file() -> None:
    readme = (CLUSTER / "README.md").read_text()
    for path in [*MANIFESTS, *CLUSTER.rglob("*.sbatch"), CLUSTER / "ray" / "launcher.yaml", CLUSTER / "Dockerfile"]:
        assert path.name in readme, path.name
