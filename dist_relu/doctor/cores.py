"""Cores, threads, and who else uses them."""

from __future__ import annotations

from collections.abc import Mapping

from dist_relu.doctor.finding import Finding, State

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


def check_cores(cpu: str, in_machine: int, allowed: int, limit: float, cores: int) -> Finding:
    """Check which cores workers get.

    in_machine, allowed: hardware threads, there and by affinity.  limit: CPUs by control group.  cores: what is left.
    """
    numbers = {"hardware_threads": in_machine, "allowed_threads": allowed, "cores": cores}
    found = f"{_counted(cores, 'core')} to use ({cpu}): `--backend local` starts {_counted(cores, 'worker')}."
    if limit < 1:
        found = f"The container may use {limit:g} of a CPU: its only worker will be stopped again and again. {found}"
        advice = "Give it at least one whole CPU: docker run --cpus, resources.limits.cpu."
        return Finding("cores", State.WARNING, found, advice, {**numbers, "cpu_limit": limit})
    if limit < allowed:
        found += f" The container's limit is {limit:g} CPUs of {allowed}."
        advice = "To use more, raise it: docker run --cpus, resources.limits.cpu, sbatch --cpus-per-task."
        return Finding("cores", State.NOTE, found, advice, {**numbers, "cpu_limit": limit})
    if allowed < in_machine:
        found += f" By its affinity this process may run on {allowed} of the machine's {in_machine} hardware threads."
        advice = "To use more: no taskset, mpirun without binding, sbatch --cpus-per-task."
        return Finding("cores", State.NOTE, found, advice, numbers)
    return Finding("cores", State.OK, found, "", numbers)


def check_thread_variables(environment: Mapping[str, str], allowed: int) -> Finding:
    """Check whether a variable makes BLAS start more threads than there are to run them.  allowed: hardware threads."""
    given = {name: environment[name] for name in THREAD_VARIABLES if environment.get(name)}
    listed = ", ".join(f"{name}={value}" for name, value in given.items())
    wrong = [name for name, value in given.items() if not value.isdecimal() or not 1 <= int(value) <= allowed]
    if wrong:
        found = (
            f"{listed}, where {allowed} hardware {'thread' if allowed == 1 else 'threads'} can be used. Workers keep "
            "to --threads-per-worker whatever it says, but your own NumPy code does not."
        )
        return Finding("threads", State.WARNING, found, f"unset {' '.join(wrong)}", given)
    if given:
        return Finding("threads", State.OK, f"{listed}; workers keep to --threads-per-worker in any case.", "", given)
    return Finding("threads", State.OK, "No variable asks for threads; workers keep to --threads-per-worker.")


def check_load(load: float, allowed: int) -> Finding:
    """Check whether others keep the cores busy.  load: the average number of running processes of the last minute."""
    numbers = {"load": load}
    if load > max(allowed / 2, 0.75):
        found = f"In the last minute {load:.1f} processes ran on {_counted(allowed, 'hardware thread')}."
        advice = "Training will work, but slower; measure on an idle machine."
        return Finding("load", State.NOTE, found, advice, numbers)
    return Finding("load", State.OK, f"Nobody else uses the cores much (load {load:.1f}).", "", numbers)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
