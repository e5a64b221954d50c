"""A program that clears up after a Ray cluster: python undertaker.py VARIABLE FOLDER.

Ray's own processes end with the process that started them, but some take a minute. When its standard input closes,
because the cluster has been shut down or its owner has died in whatever way, this program kills all processes in
whose environment VARIABLE=FOLDER stands, and removes the folder with their files. It imports nothing of the package:
it must start at once and stay small.
"""

import os
import shutil
import signal
import sys


def main(variable: str, folder: str) -> None:
    while os.read(0, 1):
        pass
    while victims := processes_with(f"{variable}={folder}"):
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    shutil.rmtree(folder, ignore_errors=True)


def processes_with(setting: str) -> list[int]:
    """The living processes in whose environment `setting` stands, zombies apart."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if setting.encode() in file.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                continue  # it has just ended, or is somebody else's
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
