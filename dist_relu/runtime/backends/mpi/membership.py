"""How a process becomes a rank of an MPI job, and how it ends being one.

MPI has no way to say that a rank won't come: the others would wait for ever, in MPI_Init before it and in MPI_Finalize
after it. So whoever waits has a watchdog (see `init_watchdog`), and whoever ends says so: a rank that failed takes the
job with it, and one that ends without having called `start()` leaves a mark for the watchdogs of the others.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from dist_relu.comm.backoff import Backoff
from dist_relu.errors import BackendError, UnsuitableBackend
from dist_relu.runtime.backends.mpi import init_watchdog, rank_guard
from dist_relu.runtime.backends.mpi.launcher import Launched, check_not_alone, launched

LONGEST_PAUSE_S = 0.002
_TIME_FOR_OUTPUT_S = 0.5
_WITHOUT_NETWORK = {"UCX_TLS": "shm,self", "OMPI_MCA_btl": "^tcp"}
"""What makes UCX (below MPICH) and Open MPI listen on no port: MPI lets in whoever speaks its language."""


@dataclass
class _Member:
    """What this process has to do with its MPI job.

    on_end: what to do about the other ranks when this process ends; None as long as it has not asked to join them.
    is_joining: it has asked the others, and can't ask twice.  has_begun: MPI was started here, and not by the user.
    watchdog: of this rank, while it waits for the others.
    """

    pid: int
    on_end: Callable[[], object] | None = None
    is_joining: bool = False
    has_begun: bool = False
    watchdog: subprocess.Popen[bytes] | None = None


_member: _Member | None = None


def take_part() -> _Member:
    """See to it that the other ranks hear of it when this process ends.  May be called several times."""
    global _member  # noqa: PLW0603 - a process is in one MPI job
    if _member is None:
        _member = _Member(os.getpid())
        atexit.register(_at_exit)
    check_not_forked(_member.pid)
    return _member


def check_not_forked(pid: int) -> None:
    """Raise BackendError unless this is still the process that had this number."""
    if os.getpid() != pid:
        raise BackendError(
            f"This process was forked by a rank of an MPI job (pid {pid}), and can't speak for it. "
            'Use dist_relu.start(backend="local") in forked processes.'
        )


def at_end(function: Callable[[], object]) -> None:
    """Let `function` tell the other ranks when this process ends, from now on."""
    take_part().on_end = function


def join_ranks() -> Any:
    """Wait for all ranks of the job; returns a communicator of our own, which no function of the user's knows.

    Raises BackendError when there can be no job.
    """
    if take_part().is_joining:
        raise BackendError("An earlier dist_relu.start() failed in this process, and with it the MPI job.")
    launch = launched()
    at_end(lambda: abort_job(launch))
    with _with_watchdog(launch):
        MPI = _initialized(launch)
        if MPI.Is_finalized():
            raise BackendError("MPI.Finalize() was called before dist_relu.start(): this MPI job has ended.")
        if MPI.Query_thread() < MPI.THREAD_SERIALIZED and not MPI.Is_thread_main():
            raise BackendError(
                "dist_relu.start() was called in a thread, but MPI was started for its main thread alone. "
                'Call it in the main thread, or set mpi4py.rc.thread_level = "multiple" before MPI starts.'
            )
        check_not_alone(MPI.COMM_WORLD.Get_size(), library_name())
        take_part().is_joining = True
        comm, request = MPI.COMM_WORLD.Idup()
        backoff = Backoff(longest_s=LONGEST_PAUSE_S)
        while not request.Test():  # inside MPI, Ctrl-C would have no effect
            backoff.pause(retry=True)
        _unlink_files()  # all ranks have opened them by now
    return comm


def abort_job(launch: Launched | None) -> None:
    """End all ranks, as far as MPI or the launcher can be told; then go on with what this process does."""
    time.sleep(_TIME_FOR_OUTPUT_S)  # what was said is on its way through mpirun, and would be overtaken
    if MPI := _running():
        if MPI.COMM_WORLD.Get_size() > 1:
            MPI.COMM_WORLD.Abort(1)
    elif launch and launch.pmi is not None and not launch.is_alone:
        os.write(launch.pmi, init_watchdog.ABORT)


def serving() -> Callable[[], NoReturn]:
    """Begin to serve rank 0; returns what ends this process when that is over, whatever the script would do next."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        _set_handler(number, int(signal.SIG_IGN))  # the launcher sends them to all, but they are for rank 0
    server = threading.current_thread()

    def on_end() -> None:
        if threading.current_thread() is server:
            _finalize()
        else:  # the script has ended, and takes the thread that serves with it
            abort_job(launched())

    def end() -> NoReturn:
        if server is threading.main_thread():
            # SystemExit could be caught by the script, and os._exit would lose what Python does at its end.
            ctypes.pythonapi.Py_Exit(0)
        atexit._run_exitfuncs()  # Python would wait for the present thread before it calls them
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

    at_end(on_end)
    return end


def _finalize() -> None:
    """Let MPI end, if nobody else has seen to it."""
    if MPI := _running():
        MPI.Finalize()


def library_name() -> str:
    """Return the name and version of the MPI library."""
    from mpi4py import MPI

    line = MPI.Get_library_version().partition("\n")[0].partition(",")[0]
    return " ".join(line.replace(" Version:", "").split())


def _at_exit() -> None:
    """Settle with the other ranks, last of the functions that run when Python ends: it was registered first."""
    if _member is None:
        return
    has_failed = getattr(sys, "last_value", None) is not None  # of an exception that nobody caught
    if _member.pid != os.getpid():
        if _running():  # in a forked child, MPI_Finalize would end the connections of its parent
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1 if has_failed else 0)
        return
    launch = launched()
    if _member.on_end:
        _member.on_end()
        if _member.has_begun:
            _finalize()
    elif has_failed:
        abort_job(launch)
    elif launch and _running():  # MPI will wait for the other ranks now
        init_watchdog.mark(launch.rank, init_watchdog.LEFT)


@contextmanager
def _with_watchdog(launch: Launched | None) -> Iterator[None]:
    """Run a watchdog beside this rank meanwhile."""
    if launch is None or launch.size is None or launch.is_alone:
        yield
        return
    numbers = (launch.rank, launch.size, launch.num_local or 0, -1 if launch.pmi is None else launch.pmi)
    limit_s = os.environ.get(rank_guard.LIMIT_VARIABLE, "0")
    command = [
        sys.executable,
        "-I",
        "-S",
        init_watchdog.__file__,
        str(os.getpid()),
        launch.variable,
        *map(str, numbers),
        limit_s,
    ]
    descriptors = () if launch.pmi is None else (launch.pmi,)
    process = take_part().watchdog = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True, pass_fds=descriptors
    )
    mark = init_watchdog.mark(launch.rank, init_watchdog.WAITS)
    yield
    os.close(mark)
    process.communicate(b".")


def _initialized(launch: Launched | None) -> Any:
    """Start MPI, if nobody has, and return mpi4py's module.  Raises BackendError when it is not installed."""
    with _ending_on_signals(), _with_environment(_WITHOUT_NETWORK if launch and launch.is_on_one_node else {}):
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:  # RuntimeError: there is mpi4py, but no MPI
            raise UnsuitableBackend(
                f"The MPI backend needs mpi4py and an MPI library ({' '.join(str(error).split())}). "
                "Install them: pip install 'dist_relu[mpi]'."
            ) from None
        if not MPI.Is_initialized():
            MPI.Init_thread()
            take_part().has_begun = True
    return MPI


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Let signals end this process meanwhile: MPI_Init keeps Python from doing anything about them."""
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) not in (signal.SIG_IGN, signal.SIG_DFL)
    ]
    handlers = {number: _set_handler(number, int(signal.SIG_DFL)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            _set_handler(number, handler)


def _set_handler(number: int, handler: int | None) -> int | None:
    """Set a signal handler of the C library, in any thread; returns the handler so far."""
    function = ctypes.pythonapi.PyOS_setsig
    function.argtypes, function.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    before: int | None = function(number, handler)
    return before


@contextmanager
def _with_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables meanwhile where the user has not."""
    new = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


def _running() -> Any:
    """Return mpi4py's MPI if it is running in this process, otherwise None."""
    MPI = sys.modules.get("mpi4py.MPI")
    return MPI if MPI and MPI.Is_initialized() and not MPI.Is_finalized() else None


def _unlink_files() -> None:
    """Take the names from files that MPICH and its launcher share: a killed job would leave them behind."""
    for path in init_watchdog.files_of(os.getpid(), init_watchdog.launcher_of(os.getpid())):
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue  # another rank was quicker
