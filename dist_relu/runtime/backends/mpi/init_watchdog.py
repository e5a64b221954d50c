"""A program that watches over a rank while an MPI job starts: python init_watchdog.py PID VARIABLE NUMBERS...

A rank that waits for the others inside MPI_Init can do nothing else: none of its threads gets a turn. So it starts this
program before. It says for whom the rank waits when that takes long, and ends the job when a rank of this node is
missing that can't come any more, or when a limit was set and is over. When the rank dies, it removes the files that
MPICH and its launcher left behind. A dot on its standard input sends it away. It imports nothing of the package: it
must start at once and stay small.

VARIABLE holds the rank in the environment of each. NUMBERS: the rank; how many there are; how many of them on this
node, 0 if unknown; the descriptor of a socket to a launcher that speaks PMI, or -1; for how many seconds the rank may
wait, 0 for ever.
"""

import contextlib
import math
import os
import select
import signal
import sys
import time

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.25
SHORTEST_SCAN_PERIOD_S, LONGEST_SCAN_PERIOD_S = 0.5, 5.0
TIME_TO_COME_S = 10.0
TIME_FOR_LAUNCHER_S = 2.0
TIME_FOR_OUTPUT_S = 0.5
WAITS, LEFT = "waits", "left"
MARK = "/memfd:dist_relu-"
LAUNCHERS = ("hydra_pmi_proxy", "prterun", "prted", "orted", "mpirun", "mpiexec", "slurmstepd")
ABORT = b"cmd=abort exitcode=1\n"
"""In PMI 1, which a launcher understands from the first moment, whether MPI has started or not."""


def main(pid: int, variable: str, rank: int, size: int, num_local: int, pmi: int, limit_s: float) -> None:
    events = select.poll()
    events.register(0, select.POLLIN)
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        events.register(process, select.POLLIN)
        launcher = launcher_of(pid)
        files: set[str] = set()
        missing = MissingRanks(variable, launcher, rank, size, num_local, limit_s or math.inf)
        pause_s = SHORTEST_PAUSE_S
        while not (ready := events.poll(pause_s * 1000)):
            files |= files_of(pid, launcher)
            pause_s = min(pause_s * 1.05, LONGEST_PAUSE_S)
            if missing.shall_end():
                end_job(process, pmi)
                break
        else:
            if any(descriptor == 0 for descriptor, _ in ready) and os.read(0, 1):
                return
            files |= files_of(pid, launcher)
        if pmi >= 0:
            os.close(pmi)
        for file in files:
            with contextlib.suppress(OSError):
                os.unlink(file)


class MissingRanks:
    """Looks every now and then which ranks are missing."""

    def __init__(self, variable: str, launcher: int, rank: int, size: int, num_local: int, limit_s: float) -> None:
        self.variable, self.launcher, self.rank, self.size, self.num_local = variable, launcher, rank, size, num_local
        self.limit_s = limit_s
        self.began_s = self.looked_s = time.monotonic()
        self.scan_period_s = SHORTEST_SCAN_PERIOD_S
        self.was_incomplete = False
        self.has_spoken = False

    def shall_end(self) -> bool:
        """Tell whether a rank can't come any more; says so, or for whom this rank waits."""
        now = time.monotonic()
        if now - self.looked_s < self.scan_period_s:
            return False
        self.looked_s, self.scan_period_s = now, min(self.scan_period_s * 1.2, LONGEST_SCAN_PERIOD_S)
        living, marked = scan_ranks(self.launcher, self.variable) if self.launcher else ([], {})
        waiting, left = marked.get(WAITS, set()), marked.get(LEFT, set())
        is_incomplete = bool(living) and len(living) < self.num_local
        if left or (is_incomplete and self.was_incomplete):  # at the first look, the launcher may still start ranks
            ended = left or self.others(living)
            say(f"{named(ended)} ended without a call of dist_relu.start(), in which rank {self.rank} waits.")
            return True
        self.was_incomplete = is_incomplete
        if now - self.began_s > self.limit_s:  # where the launcher is out of reach, nobody else would end this rank
            say(f"Rank {self.rank} has waited in dist_relu.start() for {self.limit_s:g} s in vain.")
            return True
        if not self.has_spoken and now - self.began_s > TIME_TO_COME_S:
            self.has_spoken = True
            if self.rank == min(waiting, default=self.rank):
                say(f"Rank {self.rank} waits in dist_relu.start() for {self.whom(living, waiting)} to call it as well.")
        return False

    def others(self, ranks: list[int]) -> set[int]:
        """Return all ranks but these; unknown (empty) where some may be on other nodes."""
        return set(range(self.size)) - set(ranks) if self.num_local == self.size else set()

    def whom(self, living: list[int], waiting: set[int]) -> str:
        missing = set(living) - waiting or self.others(list(waiting))
        return named(missing).replace("R", "r", 1) if missing else "ranks on other nodes"


def end_job(process: int, pmi: int) -> None:
    """End the job: by the launcher, if it can be told so, otherwise through the death of this rank."""
    time.sleep(TIME_FOR_OUTPUT_S)
    if pmi >= 0:
        with contextlib.suppress(OSError):
            os.write(pmi, ABORT)
        select.select([process], [], [], TIME_FOR_LAUNCHER_S)
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, signal.SIGKILL)
    select.select([process], [], [], TIME_FOR_LAUNCHER_S)


def launcher_of(pid: int) -> int:
    """Find the process that started the rank to which `pid` belongs, maybe through other programs; 0 if unknown."""
    with contextlib.suppress(OSError):
        while (pid := parent_and_state(pid)[0]) > 1:
            with open(f"/proc/{pid}/comm", encoding="latin-1") as file:
                if file.read().strip() in LAUNCHERS:
                    return pid
    return 0


def scan_ranks(launcher: int, variable: str) -> tuple[list[int], dict[str, set[int]]]:
    """Find the living ranks that `launcher` started, -1 for one whose number is unknown; and what is marked."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                parent, state = parent_and_state(int(name))
                if state != "Z":
                    children.setdefault(parent, []).append(int(name))
    ranks = [value_in(pid, variable) for pid in children.get(launcher, [])]
    marked: dict[str, set[int]] = {WAITS: set(), LEFT: set()}
    below = children.get(launcher, []) if launcher else []
    while below:
        pid = below.pop()
        below += children.get(pid, [])
        for target in open_files(pid):
            if target.startswith(MARK):
                state, rank = target.removeprefix(MARK).split()[0].split("-")
                marked[state].add(int(rank))
    return [int(rank) if rank.isdecimal() else -1 for rank in ranks], marked


def mark(rank: int, state: str) -> int:
    """Show the watchdog of this node how it stands with a rank, for as long as the descriptor is open."""
    return os.memfd_create(f"dist_relu-{state}-{rank}")


def open_files(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def files_of(pid: int, launcher: int) -> set[str]:
    """Find files that MPICH and its launcher made for the start of a job, and that have names still."""
    found: set[str] = set()
    with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", encoding="latin-1") as file:
        found.update(line.split(maxsplit=5)[-1].rstrip("\n") for line in file if "/dev/shm/mpich_shm_" in line)
    found.update(path for path in open_files(launcher) if "/hydra_hwloc_xmlfile_" in path)
    return {path for path in found if not path.endswith(" (deleted)")}


def value_in(pid: int, variable: str) -> str:
    """Read an environment variable of another process; empty if there is none, or it can't be read."""
    start = f"{variable}="
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", encoding="latin-1") as file:
        return next((text.removeprefix(start) for text in file.read().split("\0") if text.startswith(start)), "")
    return ""


def parent_and_state(pid: int) -> tuple[int, str]:
    with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
        state, parent = file.read().rpartition(")")[2].split()[:2]
        return int(parent), state


def named(ranks: set[int]) -> str:
    if not ranks or min(ranks) < 0:
        return "A rank of this node"
    names = ", ".join(str(rank) for rank in sorted(ranks))
    return f"Rank {names}" if len(ranks) == 1 else f"Ranks {names}"


def say(text: str) -> None:
    os.write(2, f"dist_relu: {text}\n".encode())


if __name__ == "__main__":
    process_id, name, *numbers, limit = sys.argv[1:]
    rank_number, num_ranks, num_here, socket_to_launcher = map(int, numbers)
    main(int(process_id), name, rank_number, num_ranks, num_here, socket_to_launcher, float(limit))
