"""Limits of control groups, on file systems that look like those of containers, Slurm and systemd."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest

from dist_relu.core.cgroups import available_memory_bytes, cpu_limit, memory_limit_bytes


def make(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


def test_without_control_groups_nothing_is_limited(tmp_path: Path) -> None:
    assert (cpu_limit(tmp_path), memory_limit_bytes(tmp_path), available_memory_bytes(tmp_path)) == (inf, inf, inf)


def test_a_container_with_version_2(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        {
            "proc/self/cgroup": "0::/",
            "sys/fs/cgroup/cpu.max": "150000 100000",
            "sys/fs/cgroup/memory.max": "1000",
            "sys/fs/cgroup/memory.current": "600",
            "sys/fs/cgroup/memory.stat": "anon 350\ninactive_file 250",
        },
    )
    assert cpu_limit(root) == 1.5
    assert memory_limit_bytes(root) == 1000
    assert available_memory_bytes(root) == 650


def test_a_container_with_version_1_shows_the_path_of_its_host(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "5000",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "3000",
            "sys/fs/cgroup/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 1000",
        },
    )
    assert cpu_limit(root) == 2
    assert memory_limit_bytes(root) == 5000
    assert available_memory_bytes(root) == 3000


@pytest.mark.parametrize("limited", ["", "/slurm", "/slurm/job_7", "/slurm/job_7/step_0"])
def test_a_limit_holds_for_all_groups_below(tmp_path: Path, limited: str) -> None:
    folder = f"sys/fs/cgroup{limited}"
    root = make(
        tmp_path,
        {
            "proc/self/cgroup": "0::/slurm/job_7/step_0",
            "sys/fs/cgroup/slurm/job_7/step_0/cpu.max": "max 100000",
            "sys/fs/cgroup/slurm/job_7/step_0/memory.max": "max",
            "sys/fs/cgroup/slurm/job_7/step_0/memory.current": "5",
        }
        | {
            f"{folder}/cpu.max": "400000 100000",
            f"{folder}/memory.max": "8000",
            f"{folder}/memory.current": "1000",
        },
    )
    assert (cpu_limit(root), memory_limit_bytes(root), available_memory_bytes(root)) == (4, 8000, 7000)


def test_no_limit_is_no_limit_in_either_version(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/\n2:cpu:/\n0::/../elsewhere",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "3000",
        },
    )
    assert (cpu_limit(root), memory_limit_bytes(root)) == (inf, inf)
