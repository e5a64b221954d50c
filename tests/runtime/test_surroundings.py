"""What workers find around them is what the user's process has, and they end with it, whatever that process does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import dist_relu as dr
from dist_relu.runtime.backends import LocalBackend
from dist_relu.runtime.backends.local.supervisor import descendants
from dist_relu.runtime.world import World
from tests.cases import long
from tests.programs import ROOT, run, wait_until

HEAD = """
import dist_relu as dr, os, sys
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where programs run.  They find the package, and nothing of it is in an environment variable of ours."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def output_of(folder: Path, program: str, *arguments: str, flags: tuple[str, ...] = ()) -> str:
    (folder / "program.py").write_text(HEAD + program)
    done = run([sys.executable, *flags, "program.py", *arguments], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


@pytest.mark.long
def test_workers_are_told_and_inherit_no_variables_for_it(folder: Path) -> None:
    program = """
import pathlib, signal, socket
socket.setdefaulttimeout(30)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
sys.path[:0] = [pathlib.Path("p"), "with:colon", "sur\\udcff"]
def look(world, request):
    return {
        "argv": sys.argv, "path": sys.path, "PYTHONPATH": os.environ["PYTHONPATH"],
        "blocked": signal.pthread_sigmask(0, []), "optimize": sys.flags.optimize, "cwd": os.getcwd(),
        "SIGINT": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
    }
with dr.start(1, backend="local") as coordinator:
    (seen,) = coordinator.run(look, None)
    wanted = [path for path in sys.path if isinstance(path, str)]
    os.mkdir("elsewhere"), os.chdir("elsewhere"), sys.path.insert(0, "more")
    (later,) = coordinator.run(look, None)
assert seen == {
    "argv": ["program.py", "--lr", "0.5"], "path": wanted, "PYTHONPATH": os.environ["PYTHONPATH"], "blocked": set(),
    "optimize": 1, "cwd": os.path.dirname(os.getcwd()), "SIGINT": False,
}, seen
assert later == seen | {"path": ["more", *wanted], "cwd": os.getcwd()}, later
print("as", "here")
"""
    # Assertions are left out with -O, which is why they stand in a program of their own.
    program = program.replace("assert seen == ", "import unittest; same = unittest.TestCase().assertEqual\nsame(seen, ")
    program = (
        program.replace("}, seen\n", "})\n").replace("assert later == ", "same(later, ").replace(", later\n", ")\n")
    )
    assert output_of(folder, program, "--lr", "0.5", flags=("-O",)) == "as here\n"


@pytest.mark.long
def test_standard_streams_may_be_closed(folder: Path) -> None:
    (folder / "program.py").write_text(
        HEAD
        + """
with dr.start(1, backend="local") as coordinator:
    print(coordinator.run(lambda world, request: print("a worker's"), None), file=open("result", "w"))
"""
    )
    done = run(["sh", "-c", f"{sys.executable} program.py <&- >&- 2>&-"], folder)
    assert done.returncode == 0
    assert (folder / "result").read_text() == "[None]\n"


@pytest.mark.long
def test_an_edited_and_reloaded_module_is_reloaded_in_workers_and_one_that_is_only_edited_is_refused(
    folder: Path,
) -> None:
    for name in ("helper", "other"):
        (folder / f"{name}.py").write_text("def answer():\n    return 'old'\n")
    (folder / "model.py").write_text("from helper import answer\ndef ask(world, request):\n    return answer()\n")
    program = """
import importlib, pathlib, helper, model, other
with dr.start(1, backend="local") as coordinator:
    answers = coordinator.run(model.ask, None)
    pathlib.Path("helper.py").write_text("def answer():\\n    return 'the new one'\\n")
    importlib.reload(helper)
    answers += coordinator.run(model.ask, None)  # which still has the old one, here as there
    importlib.reload(model)
    answers += coordinator.run(model.ask, None)
    print(answers)
    pathlib.Path("other.py").write_text("def answer():\\n    return 'a third one'\\n")
    try:
        coordinator.run(lambda world, request: other.answer(), None)
    except dr.BackendError as error:
        print(error)
"""
    answers, error = output_of(folder, program).splitlines()
    assert answers == "['old', 'old', 'the new one']"
    assert error.startswith("Module 'other' is another one here than in your program")
    assert "importlib.reload(other)" in error


@pytest.mark.long
def test_functions_of_modules_that_only_the_script_has_travel(folder: Path) -> None:
    (folder / "hidden").mkdir()
    (folder / "hidden" / "source.py").write_text("class Box:\n    def __init__(self, rank): self.rank = rank\n")
    program = """
import importlib.util, multiprocessing, types
made = types.ModuleType("made")
sys.modules["made"] = made
exec("def rank(world, request):\\n    return made_of(world.rank)\\ndef made_of(x): return x", made.__dict__)
spec = importlib.util.spec_from_file_location("loaded", "hidden/source.py")
loaded = importlib.util.module_from_spec(spec)
sys.modules["loaded"] = loaded
spec.loader.exec_module(loaded)
def boxed(world, request):
    return loaded.Box(request.rank + world.rank)
def child():
    with dr.start(1, backend="local") as coordinator:
        print(coordinator.run(made.rank, None), coordinator.run(boxed, loaded.Box(7))[0].rank, flush=True)
if __name__ == "__main__":
    child()
    process = multiprocessing.get_context("spawn").Process(target=child)
    process.start()
    process.join()
"""
    assert output_of(folder, program) == "[0] 7\n[0] 7\n"


def test_a_forked_child_neither_uses_nor_ends_the_workers(folder: Path) -> None:
    program = """
coordinator = dr.start(1, backend="local")
def meet(world, request):
    world.barrier.wait()
    return os.getpid()
def in_child(*uses):
    if os.fork() == 0:
        for use in uses:
            try:
                print(use(), flush=True)
            except dr.BackendError as error:
                print("belong to process" in str(error), flush=True)
        sys.exit()  # with atexit
    os.wait()
in_child(lambda: coordinator.workers)  # which have not said yet that they are there
pids = coordinator.run(meet, None)
in_child(lambda: coordinator.run(meet, None), lambda: coordinator.relu([1.0]), coordinator.__enter__, coordinator.close)
print(coordinator.run(meet, None) == pids)
"""
    assert output_of(folder, program) == "True\n" * 4 + "None\nTrue\n"


@pytest.mark.parametrize("how", ["kill", *long("close", "kill the supervisor", "kill a worker")])
def test_what_functions_have_started_ends_with_the_workers(folder: Path, how: str) -> None:
    program = """
import atexit, multiprocessing, pathlib, signal, subprocess, threading, time
def work(world, request):
    atexit.register(pathlib.Path(f"atexit {world.rank}").touch)
    threading.Thread(target=time.sleep, args=[1000], daemon=True).start()
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=[1000])
    child.start()
    away = subprocess.run(  # in the background, in a session of its own, with its parent gone
        ["setsid", "sh", "-c", "sleep 1000 >/dev/null & echo $!"], stdout=subprocess.PIPE, check=True
    )
    return [os.getppid(), os.getpid(), child.pid, int(away.stdout)]
coordinator = dr.start(2, backend="local")
(supervisor, *pids), (_, *more) = coordinator.run(work, None)
if os.fork() == 0:  # it keeps all sockets of its parent
    os.close(0), os.close(1), os.close(2)
    time.sleep(1000)
print(supervisor, *pids, *more, flush=True)
sys.stdin.readline()
coordinator.close()
"""
    (folder / "program.py").write_text(HEAD + program)
    with subprocess.Popen(
        [sys.executable, "program.py"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        supervisor, *others = map(int, process.stdout.readline().split())
        (forked,) = set(descendants(process.pid)) - {supervisor, *others}
        try:
            match how:
                case "kill":
                    process.kill()
                case "kill the supervisor":
                    os.kill(supervisor, signal.SIGKILL)
                case "kill a worker":
                    os.kill(others[0], signal.SIGKILL)
            if how in ("close", "kill a worker"):
                process.stdin.write("\n")
                process.stdin.flush()
            wait_until(lambda: not any(map(lives, others)))
        finally:
            os.kill(forked, signal.SIGKILL)
            process.kill()
    left = {path.name for path in folder.glob("atexit *")}
    assert left == {"close": {"atexit 0", "atexit 1"}, "kill a worker": {"atexit 1"}}.get(how, left)


def test_workers_that_are_still_importing_end_with_a_killed_coordinator(folder: Path) -> None:
    (folder / "program.py").write_text(
        HEAD + 'coordinator = dr.start(2, backend="local")\nprint(os.getpid(), flush=True)\ninput()\n'
    )
    with subprocess.Popen(
        [sys.executable, "program.py"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        wait_until(lambda: len(descendants(process.pid)) == 3)  # a supervisor and two workers
        pids = descendants(process.pid)
        process.kill()
    wait_until(lambda: not any(map(lives, pids)))


def test_ctrl_c_is_not_for_workers_that_still_start(folder: Path) -> None:
    program = """
import signal, time
from dist_relu.runtime.backends.local.supervisor import descendants
coordinator = dr.start(1, backend="local")
while len(pids := descendants()) < 2:
    time.sleep(0.001)
for pid in pids:
    os.kill(pid, signal.SIGINT)
print(coordinator.run(lambda world, request: world.rank, None))
"""
    assert output_of(folder, program) == "[0]\n"


@pytest.mark.long
def test_a_frozen_program_does_not_run_itself(folder: Path) -> None:
    program = """
with open("runs", "a") as file:
    file.write(".")
from multiprocessing import spawn
sys.executable = os.path.abspath("program")
spawn.set_executable(sys.executable)
sys.frozen = {frozen}
try:
    dr.start(1, backend="local")
except dr.BackendError as error:
    print(error)
"""
    (folder / "program").write_text(f'#!/bin/sh\nexec {sys.executable} program.py "$@"\n')
    (folder / "program").chmod(0o755)
    for frozen in (True, False):
        said = output_of(folder, program.replace("{frozen}", str(frozen)))
        assert "multiprocessing.set_executable" in said
    assert (folder / "runs").read_text() == ".."


@pytest.mark.long
def test_a_program_that_is_taken_for_python_does_not_run_itself_again(folder: Path) -> None:
    (folder / "python-like").write_text(f'#!/bin/sh\nexec {sys.executable} program.py "$@"\n')
    (folder / "python-like").chmod(0o755)
    program = """
with open("runs", "a") as file:
    file.write(".")
from multiprocessing import spawn
spawn.set_executable(os.path.abspath("python-like"))
try:
    dr.start(1, backend="local").workers
except dr.BackendError as error:
    print(error)
"""
    assert "in place of Python" in output_of(folder, program)
    assert (folder / "runs").read_text() == ".."


def pid(world: World, request: None) -> int:
    return os.getpid()


def wait_for_ever(world: World, request: None) -> None:
    world.report(os.getpid())
    while True:
        time.sleep(0.01)
        world.barrier.check()


@pytest.mark.long
def test_a_worker_that_was_stopped_is_named() -> None:
    with dr.start(backend=LocalBackend(2, worker_timeout_s=2)) as coordinator:
        victim = coordinator.run(pid, None)[1]

        def stop(_: int) -> None:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGSTOP)

        with pytest.raises(dr.WorkerLost, match=rf"Worker 1 \(host .*, pid {victim}\) was stopped by a signal"):
            coordinator.run(wait_for_ever, None, stop)
    assert not lives(victim)


@pytest.mark.long
def test_workers_may_be_closed_in_another_thread(folder: Path) -> None:
    program = """
import threading, time
coordinator = dr.start(1, backend="local")
threads = []
def close(_):
    threads.append(threading.Thread(target=coordinator.close))
    threads[0].start()
def work(world, request):
    world.report("here")
    time.sleep(1000)
try:
    coordinator.run(work, None, close)
except dr.BackendError as error:
    print(error)
threads[0].join()
"""
    assert output_of(folder, program) == "The workers were ended by close(). Start others.\n"


@pytest.mark.long
def test_the_first_calls_may_come_from_several_threads(folder: Path) -> None:
    program = """
from concurrent.futures import ThreadPoolExecutor
with dr.start(2, backend="local") as coordinator, ThreadPoolExecutor(4) as pool:
    print(list(pool.map(lambda _: coordinator.relu([-1.0, 2.0]).tolist(), range(4))))
"""
    assert output_of(folder, program) == str([[0.0, 2.0]] * 4) + "\n"
