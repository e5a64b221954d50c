"""A program that clears up after a Ray cluster: python undertaker.py FOLDER.

Ray's own processes end with the process that started them, but some take a minute. When its standard input closes,
because the cluster has been shut down or its owner has died in whatever way, this program kills all processes that
have their files in FOLDER, and removes the folder. It imports nothing of the package: it must start at once and stay
small.
"""

import os
import shutil
import signal
import sys
import time


def main(folder: str) -> None:
    while os.read(0, 1):
        pass
    while victims := processes_of(folder):
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)
    shutil.rmtree(folder, ignore_errors=True)


def processes_of(folder: str) -> list[int]:
    """The living processes of the Ray cluster whose files are in `folder`."""
    found = []
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                if _belongs_to(folder, f"/proc/{pid}"):
                    found.append(int(pid))
            except OSError:
                continue  # it has just ended, or is somebody else's
    return found


def _belongs_to(folder: str, process: str) -> bool:
    """Ray's programs are started with the folder's name; others call themselves ray:: and have a file open there."""
    with open(f"{process}/cmdline", encoding="latin-1") as file:
        command = file.read()
    if not command.startswith("ray::"):
        return "/ray/" in command and folder + "/" in command
    return any(os.readlink(f"{process}/fd/{name}").startswith(folder + "/") for name in os.listdir(f"{process}/fd"))


if __name__ == "__main__":
    main(*sys.argv[1:])
