"""Ray: whether a cluster can be reached, whether versions match, and whether its nodes do their part."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dist_relu.doctor.finding import Finding, State
from dist_relu.doctor.programs import Outcome, run_module
from dist_relu.doctor.survey import Link, Process, Survey
from dist_relu.runtime.backends.ray.start_note import address_in

_CONNECT_TIMEOUT_S = 3.0
_TIMEOUT_S = 600.0
"""For all checks of all nodes, which may have to compile all kernels."""

_ADVICE = (
    ("version mismatch", "Install the cluster's versions of Ray and Python here, or these there."),
    ("token", "Set RAY_AUTH_MODE, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, alike here and on every node."),
    ("authenticat", "Set RAY_AUTH_MODE, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, alike here and on every node."),
    ("no module named 'dist_relu'", "Install dist_relu on every node of the cluster, in the Python that runs Ray."),
)


def cluster_address(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the cluster that Ray would join, and who names it; None where it would start one.

    As Ray itself does: $RAY_ADDRESS, or else what `ray start` left on this machine.
    """
    given = environment.get("RAY_ADDRESS", "")
    if given == "local":
        return None
    if given and given != "auto":
        return given, "RAY_ADDRESS"
    path = str(Path(environment.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster")
    address = address_in(path)
    return (address, path) if address else None


def is_open(address: str) -> bool:
    """Tell whether something listens at "host:port"."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        with closing(socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT_S)):
            return True
    except (OSError, ValueError):
        return False


def look_at_cluster(address: str | None, environment: Mapping[str, str]) -> Outcome:
    """Ask the nodes of a cluster, or of one that is started for it on this machine, in another process."""
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": address or "local", "PYTHONWARNINGS": "ignore"}
    return run_module("dist_relu.doctor.ray_survey", _TIMEOUT_S, {**environment, **settings})


def check_ray(
    is_installed: bool, cluster: tuple[str, str] | None, is_reachable: bool, outcome: Outcome | None
) -> tuple[Finding, Survey | None]:
    """Check whether Ray works, and the survey of its nodes if it does.

    cluster: see `cluster_address`.  outcome: of `look_at_cluster`, None where it was not tried.
    """
    if not is_installed:
        found = "Not installed: `--backend ray` is not available."
        return Finding("Ray", State.NOTE, found, "To have it: pip install 'dist_relu[ray]'"), None
    where = f"the cluster at {cluster[0]} (named by {cluster[1]})" if cluster else "a cluster on this machine"
    if cluster and not is_reachable:
        found = f"Nothing answers at {cluster[0]}, which {cluster[1]} names."
        remedy = "unset RAY_ADDRESS" if cluster[1] == "RAY_ADDRESS" else f"rm {cluster[1]}"
        advice = f"See whether the cluster runs and its port is open from here. If there is none: {remedy}"
        return Finding("Ray", State.FAILURE, found, advice), None
    if outcome is None or outcome.code != 0:
        complaint = "nobody tried" if outcome is None else outcome.complaint
        found = f"Could not {'join' if cluster else 'start'} {where}: {complaint}."
        return Finding("Ray", State.FAILURE, found, _advice(outcome)), None
    content = json.loads(outcome.output.splitlines()[-1])
    nodes, cpus = content["nodes"], content["cpus"]
    numbers = {"version": content["version"], "nodes": nodes, "cpus": cpus, "joined": cluster is not None}
    did = (
        f"joined {where}: {nodes} {'node' if nodes == 1 else 'nodes'}, {cpus:g} CPUs" if cluster else f"started {where}"
    )
    found = f"Ray {content['version']} {did}, and actors answered."
    if danger := content["danger"]:
        return Finding("Ray", State.WARNING, f"{found} {danger}", "", numbers), survey_of(content)
    return Finding("Ray", State.OK, found, "", numbers), survey_of(content)


def look_at_ray(environment: Mapping[str, str]) -> tuple[Finding, Survey | None]:
    """Check Ray on this machine."""
    is_installed = find_spec("ray") is not None
    cluster = cluster_address(environment) if is_installed else None
    reachable = cluster is None or is_open(cluster[0])
    outcome = look_at_cluster(cluster[0] if cluster else None, environment) if is_installed and reachable else None
    return check_ray(is_installed, cluster, reachable, outcome)


def content_of(survey: Survey, **more: Any) -> dict[str, Any]:
    """Write a survey as JSON, with `more` beside it."""
    elsewhere = [(host, {**asdict(finding), "state": finding.state.value}) for host, finding in survey.elsewhere]
    return {
        **more,
        "processes": [asdict(process) for process in survey.processes],
        "links": [asdict(link) for link in survey.links],
        "elsewhere": elsewhere,
    }


def survey_of(content: Mapping[str, Any]) -> Survey:
    """Read the survey that `content_of` wrote."""
    processes = [Process(**{**process, "cores": tuple(process["cores"])}) for process in content["processes"]]
    elsewhere = [
        (host, Finding(**{**finding, "state": State(finding["state"])})) for host, finding in content["elsewhere"]
    ]
    return Survey("Ray", processes, [Link(**link) for link in content["links"]], elsewhere)


def _advice(outcome: Outcome | None) -> str:
    said = f"{outcome.errors}\n{outcome.output}".lower() if outcome else ""
    for word, advice in _ADVICE:
        if word in said:
            return advice
    return "Try it alone: python -c 'import ray; ray.init()'"
