"""The checks of a single machine, with the facts of this one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

from dist_relu.core import cgroups, machine
from dist_relu.data.downloads import MNIST_URL, cache_folder, find_mnist
from dist_relu.doctor import blas, clock, cores, memory, storage, trial
from dist_relu.doctor.finding import Check, Finding, carry_out
from dist_relu.kernels import atomic


def look_at_machine() -> Iterator[Finding]:
    """Carry out all checks that concern this machine alone."""
    for check in machine_checks():
        yield carry_out(check)


def machine_checks() -> list[Check]:
    """Return what there is to look at on any machine, quick things first."""
    allowed = len(os.sched_getaffinity(0))
    environment = dict(os.environ)
    return [
        Check(
            "cores",
            lambda: cores.check_cores(
                machine.cpu_name(), os.cpu_count() or 1, allowed, cgroups.cpu_limit(), machine.num_cores()
            ),
        ),
        Check("threads", lambda: cores.check_thread_variables(environment, allowed)),
        Check("load", lambda: cores.check_load(os.getloadavg()[0], allowed)),
        Check("clock", lambda: clock.check_clock(clock.clock_source())),
        Check(
            "memory",
            lambda: memory.check_memory(machine.available_memory_bytes(), cgroups.memory_limit_bytes()),
        ),
        Check("/dev/shm", lambda: memory.check_dev_shm(memory.dev_shm_bytes())),
        Check("shared memory", memory.check_memfd),
        Check(
            "procfs",
            lambda: memory.check_procfs(memory.attach_from_outside(environment), memory.ProcfsFacts.here()),
        ),
        Check("ulimit", lambda: memory.check_resource_limits(memory.resource_limits())),
        Check("disk", lambda: storage.check_disk([Path.cwd(), cache_folder()])),
        Check("data", lambda: storage.check_data(find_mnist(), MNIST_URL)),
        Check("kernels", lambda: storage.check_kernel_cache(_kernel_cache())),
        Check("BLAS", lambda: blas.check_blas(_blas(), blas.cpu_flags(), environment, blas.gflops)),
        Check("training", lambda: trial.check_training(trial.train(environment))),
    ]


def _kernel_cache() -> Path | None:
    kernel: Any = atomic.wait_for_all
    return Path(kernel.stats.cache_path) if kernel.stats.cache_path else None


def _blas() -> dict[str, Any] | None:
    return blas.numpy_blas(threadpool_info())
