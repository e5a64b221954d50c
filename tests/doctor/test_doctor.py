"""What the checks of `dist-relu doctor` make of machines that are fine, and of those that are not."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
from math import inf
from pathlib import Path
from typing import Any

import pytest

from dist_relu.doctor import blas, clock, cores, memory, mpi, ray, storage, trial
from dist_relu.doctor.finding import Check, Finding, State, as_json, as_text, carry_out, verdict, works
from dist_relu.doctor.programs import Outcome, run_program

FINE = Outcome(0, "", "")
HASWELL = {"internal_api": "openblas", "version": "0.3.31", "architecture": "Haswell"}
AVX2 = {"avx", "avx2", "fma"}
AVX512 = AVX2 | {"avx512f", "avx512dq", "avx512bw", "avx512vl"}


def failed(errors: str = "", code: int | None = 1) -> Outcome:
    return Outcome(code, "", errors)


# Findings


def test_a_check_that_crashes_is_a_finding() -> None:
    def crash() -> Finding:
        raise FileNotFoundError("no /proc here")

    finding = carry_out(Check("memory", crash))
    assert (finding.subject, finding.state) == ("memory", State.FAILURE)
    assert "FileNotFoundError: no /proc here" in finding.found


def test_only_failures_keep_training_from_working() -> None:
    fine = [Finding(state.value, state, "") for state in (State.OK, State.NOTE, State.WARNING)]
    assert works(fine)
    assert verdict(fine) == "Training will work. 1 warning above."
    bad = [*fine, Finding("memory", State.FAILURE, "")]
    assert not works(bad)
    assert verdict(bad) == "Training will not work, or not everywhere. See memory above."


def test_text_fits_into_the_columns_and_nothing_is_lost() -> None:
    finding = Finding("shared memory", State.WARNING, "word " * 60, "remedy " * 30)
    lines = as_text(finding, 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert "".join(lines).count("word") == 60
    assert "".join(lines).count("remedy") == 30
    assert lines[0].startswith("warning shared memory word")


def test_json_holds_what_the_text_says() -> None:
    content = json.loads(json.dumps(as_json([Finding("clock", State.OK, "fine", "", {"reading_us": 0.1})])))
    assert content == {
        "works": True,
        "findings": [
            {"subject": "clock", "state": "ok", "found": "fine", "advice": "", "numbers": {"reading_us": 0.1}}
        ],
    }


# Programs


def test_a_program_that_takes_too_long_is_ended_with_its_children() -> None:
    outcome = run_program(["sh", "-c", "echo begun; sleep 1000 & sleep 1000"], 0.5)
    assert (outcome.code, outcome.output) == (None, "begun\n")
    assert outcome.complaint == "it did not end in time"


def test_the_complaint_of_a_program_is_its_last_line_or_its_signal() -> None:
    assert run_program(["sh", "-c", "echo first >&2; echo last >&2; exit 3"], 60).complaint == "last"
    assert "killed by signal 4" in run_program(["sh", "-c", "kill -ILL $$"], 60).complaint
    assert run_program(["sh", "-c", "echo Refused. >&2; echo ----- >&2; exit 3"], 60).complaint == "Refused"
    assert run_program(["sh", "-c", "exit 3"], 60).complaint == "it ended with exit code 3"


# Cores


@pytest.mark.parametrize(
    ("allowed", "limit", "usable", "state", "word"),
    [
        (8, inf, 8, State.OK, "starts 8 workers"),
        (8, 2.5, 2, State.NOTE, "limit is 2.5 CPUs of 8"),
        (8, 0.5, 1, State.WARNING, "0.5 of a CPU"),
        (1, inf, 1, State.NOTE, "1 of the machine's 8 hardware threads"),
    ],
)
def test_cores(allowed: int, limit: float, usable: int, state: State, word: str) -> None:
    finding = cores.check_cores("A CPU", 8, allowed, limit, usable)
    assert finding.state is state
    assert word in finding.found
    assert bool(finding.advice) == (state is not State.OK)


@pytest.mark.parametrize(
    ("environment", "state"),
    [
        ({}, State.OK),
        ({"OMP_NUM_THREADS": "1"}, State.OK),
        ({"OMP_NUM_THREADS": ""}, State.OK),
        ({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "64"}, State.WARNING),
        ({"MKL_NUM_THREADS": "many"}, State.WARNING),
        ({"OMP_NUM_THREADS": "0"}, State.WARNING),
    ],
)
def test_variables_that_ask_for_too_many_threads(environment: dict[str, str], state: State) -> None:
    assert cores.check_thread_variables(environment, 4).state is state


def test_only_the_wrong_variable_is_to_be_unset() -> None:
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "64"}
    assert cores.check_thread_variables(environment, 4).advice == "unset OPENBLAS_NUM_THREADS"


def test_a_busy_machine_is_noted() -> None:
    assert cores.check_load(0.2, 4).state is State.OK
    assert cores.check_load(3.5, 4).state is State.NOTE


# BLAS


def speed(environment: Any) -> float:
    return 50.0 if "OPENBLAS_CORETYPE" in environment else 95.0


def test_a_forced_kernel_below_the_processor_is_found_and_its_price_measured() -> None:
    finding = blas.check_blas(HASWELL, AVX512, {"OPENBLAS_CORETYPE": "Haswell"}, speed)
    assert finding.state is State.WARNING
    assert "OPENBLAS_CORETYPE=Haswell forces it; without: 95 GFLOP/s" in finding.found
    assert "unset OPENBLAS_CORETYPE" in finding.advice
    assert (finding.numbers["gflops"], finding.numbers["gflops_unforced"]) == (50, 95)


def test_an_old_blas_on_a_new_processor_is_found() -> None:
    finding = blas.check_blas(HASWELL, AVX512, {}, speed)
    assert finding.state is State.WARNING
    assert "Update NumPy" in finding.advice


@pytest.mark.parametrize(
    ("kernel", "flags"),
    [
        ("Haswell", AVX2),
        ("Zen", AVX2),
        ("SkylakeX", AVX512),
        ("Cooperlake", AVX512),
        ("neoversen1", set()),
        ("?", AVX2),
    ],
)
def test_a_kernel_that_suits_the_processor_is_fine(kernel: str, flags: set[str]) -> None:
    finding = blas.check_blas({**HASWELL, "architecture": kernel}, flags, {}, speed)
    assert finding.state is State.OK
    assert "95 GFLOP/s" in finding.found


def test_numpy_without_a_known_blas_is_a_warning() -> None:
    assert blas.check_blas(None, AVX2, {}, speed).state is State.WARNING
    assert blas.numpy_blas([{"user_api": "openmp", "filepath": ""}]) is None


def test_numpys_own_blas_is_taken_not_that_of_scipy() -> None:
    scipy = {"user_api": "blas", "filepath": "/site-packages/scipy.libs/a.so"}
    numpy = {"user_api": "blas", "filepath": "/site-packages/numpy.libs/a.so"}
    assert blas.numpy_blas([scipy, numpy]) == numpy


def test_the_speed_of_blas_is_measured_in_a_process_that_may_crash() -> None:
    measured = blas.gflops(os.environ)
    assert measured is not None
    assert measured > 0.1
    assert blas.gflops({**os.environ, "PYTHONHOME": "/nowhere"}) is None


def test_flags_of_the_processor(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2 fma\n")
    assert blas.cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx2", "fma"}


# Memory


@pytest.mark.parametrize(
    ("available", "limit", "state"),
    [
        (8e9, inf, State.OK),
        (8e9, 16e9, State.NOTE),
        (500e6, 600e6, State.WARNING),
        (100e6, inf, State.FAILURE),
    ],
)
def test_memory(available: float, limit: float, state: State) -> None:
    finding = memory.check_memory(available, limit)
    assert finding.state is state
    assert ("container" in finding.found) == (limit < inf)


@pytest.mark.parametrize(("shm_bytes", "state"), [(8e9, State.OK), (64 << 20, State.NOTE), (None, State.WARNING)])
def test_a_small_dev_shm_is_no_limit_to_us(shm_bytes: float | None, state: State) -> None:
    finding = memory.check_dev_shm(shm_bytes)
    assert finding.state is state
    assert "no limit to training" in finding.found


def test_memory_is_shared_with_another_process() -> None:
    assert memory.check_memfd().state is State.OK
    outcome = memory.attach_from_outside({**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert memory.check_procfs(outcome, memory.ProcfsFacts.here()).state is State.OK


def test_a_kernel_without_memfd_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "memfd_create", refuse)
    finding = memory.check_memfd()
    assert finding.state is State.FAILURE
    assert "seccomp" in finding.advice


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        (memory.ProcfsFacts("rw,hidepid=2", True, None, 0), "without hidepid"),
        (memory.ProcfsFacts("rw", False, None, 0), "not dumpable"),
        (memory.ProcfsFacts("rw", True, "3", 0), "ptrace_scope is 3"),
        (memory.ProcfsFacts("not mounted", True, None, 0), "Mount /proc"),
        (memory.ProcfsFacts("rw", True, "1", 1000), "one user (here 1000)"),
    ],
)
def test_what_keeps_processes_apart_is_named(facts: memory.ProcfsFacts, word: str) -> None:
    finding = memory.check_procfs(failed("PermissionError: [Errno 13] Permission denied: '/proc/7/fd/5'"), facts)
    assert finding.state is State.FAILURE
    assert "Permission denied" in finding.found
    assert word in finding.advice


@pytest.mark.parametrize("letter", ["n", "v", "f", "u"])
def test_low_limits_of_the_shell_are_named(letter: str) -> None:
    free = dict.fromkeys("nvfu", resource.RLIM_INFINITY)
    assert memory.check_resource_limits(free).state is State.OK
    finding = memory.check_resource_limits({**free, letter: 20})
    assert finding.state is State.WARNING
    assert f"ulimit -{letter}" in finding.advice


# Clock


def test_the_clock_of_this_machine_is_fine() -> None:
    assert clock.check_clock("tsc").state is State.OK


def test_clocks_that_go_back_stand_still_or_are_slow_are_found() -> None:
    readings = iter(range(100_000, 0, -1))
    assert "went back" in clock.check_clock("tsc", lambda: float(next(readings))).found
    assert "stands still" in clock.check_clock("tsc", lambda: 1.0).found
    assert clock.check_clock("hpet").state is State.WARNING


# Disk


def test_kernels_are_kept_where_one_may_write(tmp_path: Path) -> None:
    assert "first run" in storage.check_kernel_cache(tmp_path / "new").found
    (tmp_path / "a.nbc").touch()
    assert storage.check_kernel_cache(tmp_path).state is State.OK
    finding = storage.check_kernel_cache(tmp_path / "a.nbc" / "below-a-file")
    assert finding.state is State.FAILURE
    assert "NUMBA_CACHE_DIR" in finding.advice
    assert storage.check_kernel_cache(None).state is State.WARNING


def test_full_disks_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert storage.check_disk([tmp_path / "not" / "there"]).state is State.OK
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage())
    assert storage.check_disk([tmp_path]).state is State.WARNING


class _Usage:
    free = 1_000_000


def test_data_sets() -> None:
    assert storage.check_data(Path("/data/mnist"), "http://mnist").state is State.OK
    finding = storage.check_data(None, "http://mnist")
    assert finding.state is State.NOTE
    assert "DIST_RELU_DATA" in finding.advice


# Training


def test_training_is_proved_by_equal_digests() -> None:
    assert trial.check_training(Outcome(0, "a\na\n", "")).state is State.OK
    assert "other bits" in trial.check_training(Outcome(0, "a\nb\n", "")).found
    finding = trial.check_training(failed(code=-4))
    assert finding.state is State.FAILURE
    assert "killed by signal 4" in finding.found


# MPI


def ranks(*answers: dict[str, Any]) -> Outcome:
    return Outcome(0, "".join(json.dumps(answer) for answer in answers), "")


ANSWER = {"size": 2, "total": 3, "library": "MPICH Version:      5.0.2\nMPICH Release date: x", "threads": True}


def test_two_ranks_that_talk_are_fine() -> None:
    finding = mpi.check_mpi(True, "/bin/mpirun", False, ranks(ANSWER, ANSWER))
    assert finding.state is State.OK
    assert finding.found.startswith("MPICH 5.0.2 started two ranks")


@pytest.mark.parametrize(
    ("installed", "mpirun", "srun", "outcome", "state", "word"),
    [
        (False, None, False, None, State.NOTE, "pip install 'dist_relu[mpi]'"),
        (True, None, True, None, State.NOTE, "srun -n 2 dist-relu doctor"),
        (True, None, False, None, State.FAILURE, "pip install 'dist_relu[mpi]'"),
        (True, "mpirun", False, failed("mpirun has detected an attempt to run as root."), State.FAILURE, "AS_ROOT"),
        (True, "mpirun", False, failed("There are not enough slots available"), State.FAILURE, "--oversubscribe"),
        (True, "mpirun", False, failed("cannot load MPI library libmpi.so"), State.FAILURE, "no MPI library"),
        (True, "mpirun", False, failed("process_vm_readv failed (errno 1)"), State.FAILURE, "CMA_ENABLE=0"),
        (True, "mpirun", False, failed(code=None), State.FAILURE, "mpirun -n 2 hostname"),
        (True, "mpirun", False, ranks(ANSWER), State.FAILURE, "mpirun -n 2 hostname"),
        (True, "mpirun", False, ranks(*[{**ANSWER, "size": 1, "total": 1}] * 2), State.FAILURE, "LD_LIBRARY_PATH"),
        (True, "mpirun", False, ranks(*[{**ANSWER, "threads": False}] * 2), State.WARNING, "openmpi"),
    ],
)
def test_broken_mpi_is_a_failure_and_a_missing_one_a_note(
    installed: bool, mpirun: str | None, srun: bool, outcome: Outcome | None, state: State, word: str
) -> None:
    finding = mpi.check_mpi(installed, mpirun, srun, outcome)
    assert finding.state is state
    assert word in finding.advice


def test_an_mpirun_that_hangs_is_a_failure(tmp_path: Path) -> None:
    hanging = tmp_path / "mpirun"
    hanging.write_text("#!/bin/sh\nsleep 1000\n")
    hanging.chmod(0o755)
    outcome = mpi.start_two_ranks(str(hanging), {}, timeout_s=0.5)
    assert "did not end in time" in mpi.check_mpi(True, str(hanging), False, outcome).found


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("MPICH Version:      5.0.2\nMPICH Release date: today", "MPICH 5.0.2"),
        ("Open MPI v5.0.3, package: Open MPI me@here, ident: 5.0.3", "Open MPI v5.0.3"),
    ],
)
def test_names_of_mpi_libraries_are_short(said: str, name: str) -> None:
    assert mpi.short_name(said) == name


# Ray


def test_the_cluster_is_the_one_that_ray_would_join(tmp_path: Path) -> None:
    environment = {"RAY_TMPDIR": str(tmp_path)}
    assert ray.cluster_address(environment) is None
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379\n")
    assert ray.cluster_address(environment) == ("10.0.0.1:6379", str(tmp_path / "ray" / "ray_current_cluster"))
    assert ray.cluster_address({**environment, "RAY_ADDRESS": "head:6379"}) == ("head:6379", "RAY_ADDRESS")
    assert ray.cluster_address({**environment, "RAY_ADDRESS": "local"}) is None


def test_ray_that_is_not_installed_is_a_note() -> None:
    finding, survey = ray.check_ray(False, None, False, None)
    assert (finding.state, survey) == (State.NOTE, None)
    assert "pip install 'dist_relu[ray]'" in finding.advice


def test_a_cluster_that_is_gone_is_a_failure() -> None:
    assert not ray.is_open("127.0.0.1:1")
    assert not ray.is_open("nonsense")
    for named_by, remedy in (("RAY_ADDRESS", "unset RAY_ADDRESS"), ("/tmp/ray/it", "rm /tmp/ray/it")):
        finding, survey = ray.check_ray(True, ("127.0.0.1:1", named_by), False, None)
        assert (finding.state, survey) == (State.FAILURE, None)
        assert remedy in finding.advice


@pytest.mark.parametrize(
    ("errors", "word"),
    [
        ("RuntimeError: Version mismatch: The cluster was started with: Ray: 2.9.0", "cluster's versions"),
        ("InvalidAuthToken", "RAY_AUTH_MODE"),
        ("ModuleNotFoundError: No module named 'dist_relu'", "on every node"),
        ("Segmentation fault", "ray.init()"),
    ],
)
def test_what_ray_complains_about_is_told_with_a_remedy(errors: str, word: str) -> None:
    finding, survey = ray.check_ray(True, ("head:6379", "RAY_ADDRESS"), True, failed(errors))
    assert (finding.state, survey) == (State.FAILURE, None)
    assert errors in finding.found
    assert word in finding.advice
