"""Check everything in cluster/ that can be checked without a cluster: `make check-cluster`.

Scripts with shellcheck, manifests against the schemas of Kubernetes and those of schemas.json, the launcher's file with
Ray's own validation, and docker-compose.yml with whichever compose is installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from ray.serve.schema import ServeDeploySchema

CLUSTER = Path(__file__).parent
KUBERNETES_VERSION = "1.30"


def main() -> None:
    failed = False
    checks = {
        "scripts": check_scripts,
        "manifests": check_manifests,
        "launcher": check_launcher,
        "compose": check_compose,
    }
    for name, check in checks.items():
        try:
            print(f"{name:<10} ok: {check()}")
        except Exception as error:
            failed = True
            print(f"{name:<10} FAILED: {error}")
    sys.exit(failed)


def check_scripts() -> str:
    """All shell scripts, with shellcheck."""
    scripts = sorted([*CLUSTER.rglob("*.sh"), *CLUSTER.rglob("*.sbatch")])
    shellcheck = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or "shellcheck"
    done = subprocess.run([shellcheck, *map(str, scripts)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"shellcheck\n{done.stdout}{done.stderr}")
    return _listed(scripts)


def check_manifests() -> str:
    """Manifests of Kubernetes against schemas.json, their pods against Kubernetes, and what is served against Ray."""
    schemas = json.loads((CLUSTER / "kubernetes" / "schemas.json").read_text())
    paths = sorted((CLUSTER / "kubernetes").glob("*.yaml"))
    for path in paths:
        manifest = yaml.safe_load(path.read_text())
        schema = {**schemas[manifest["kind"]], "$defs": schemas["$defs"]}
        try:
            jsonschema.validate(manifest, schema)
            for template in pod_templates(manifest):
                pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": template["spec"]}
                kubernetes_validate.validate(pod, KUBERNETES_VERSION, strict=True)
            if manifest["kind"] == "RayService":
                ServeDeploySchema.model_validate(yaml.safe_load(manifest["spec"]["serveConfigV2"]))
        except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
            raise ValueError(f"{path.name}: {'.'.join(map(str, error.path))}: {error.message}") from None
    return _listed(paths)


def pod_templates(content: Any) -> Iterator[dict[str, Any]]:
    """All pod templates in a manifest."""
    if isinstance(content, list):
        for item in content:
            yield from pod_templates(item)
    elif isinstance(content, dict):
        for name, item in content.items():
            if name == "template":
                yield item
            else:
                yield from pod_templates(item)


def check_launcher() -> str:
    """The file of Ray's cluster launcher, as `ray up` reads it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    path = CLUSTER / "ray" / "launcher.yaml"
    validate_config(prepare_config(yaml.safe_load(path.read_text())))
    return path.name


def check_compose() -> str:
    """docker-compose.yml, as compose reads it."""
    path = CLUSTER.parent / "docker-compose.yml"
    composes = [["docker-compose"]] if shutil.which("docker-compose") else []
    if shutil.which("docker"):
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        composes += [["docker", "compose"]] if plugin.returncode == 0 else []
    for compose in composes:
        command = [*compose, "--file", str(path), "--profile", "mpi", "--profile", "serve", "config", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"{' '.join(compose)}: {done.stderr.strip()}")
    if not composes:
        return "not checked, for want of docker-compose"
    return f"{path.name} ({' and '.join(' '.join(compose) for compose in composes)})"


def _listed(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths)


if __name__ == "__main__":
    main()
