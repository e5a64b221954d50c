"""Train on an emulated arm64 processor, and compare the bits with those that there have always been.

It needs root, Debian's qemu-user-static and debootstrap, and some six minutes, half of them to compile kernels. The
exit code is 1 unless all are the same.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys

from tests.arm64.root import EMULATOR, make_python, make_root
from tests.programs import ROOT

_ONE_OF_EACH = ["mlp:64-4", "cnn-4", "resnet:8-4", "rnn:32-4", "policy"]
"""Convolutions of `resnet:8` are by Winograd's way."""
_AMONG_WORKERS = ["mlp:64-4", "--workers=2"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.arm64", description=__doc__)
    parser.add_argument("arguments", nargs="*", metavar="NAME", help="what goes to tests.digests instead")
    given, options = parser.parse_known_args()
    missing = [program for program in (EMULATOR, "debootstrap") if not shutil.which(program)]
    if missing:
        parser.error(f"{' and '.join(missing)} can't be found. On Debian: apt-get install qemu-user-static debootstrap")
    if os.geteuid():
        parser.error("only root can unpack a system.")
    folder = ROOT / "build/arm64"
    folder.mkdir(parents=True, exist_ok=True)
    python = folder / "python"
    make_root(folder / "root")
    make_python(folder / "root", python)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    asked_for = [*given.arguments, *options]
    codes = [
        subprocess.run([python, "-m", "tests.digests", *arguments], env=environment, check=False).returncode
        for arguments in ([asked_for] if asked_for else [_ONE_OF_EACH, _AMONG_WORKERS])
    ]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
