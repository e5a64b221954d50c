"""A folder with what Python and the package need on arm64, for QEMU's emulation of a program, not of a machine."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import IO

from tests.programs import ROOT

EMULATOR = "qemu-aarch64-static"
_SUITE = "bookworm"
_PYTHON = "3.11"
_PLATFORMS = ["manylinux_2_28_aarch64", "manylinux2014_aarch64"]
"""Of wheels; the C library of the suite is 2.36."""


def make_root(folder: Path) -> None:
    """Fill a folder with Debian's Python and with wheels, unless it is filled.  Only root may."""
    done = folder / "done"
    if done.exists():
        return
    print("An arm64 system is fetched.", flush=True)
    include = f"--include=python{_PYTHON},libstdc++6"
    _run("debootstrap", "--foreign", "--arch=arm64", "--variant=minbase", include, _SUITE, str(folder))
    # The second stage would run programs of the new system. To unpack them is enough.
    for package in sorted((folder / "var/cache/apt/archives").glob("*.deb")):
        content = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
        _run("tar", "--extract", "--keep-directory-symlink", "--directory", str(folder), stdin=content.stdout)
        if content.wait():
            raise RuntimeError(f"{package} can't be unpacked.")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    _install(folder, *project["dependencies"], *project["optional-dependencies"]["rl"])
    done.touch()


def make_python(root: Path, program: Path) -> None:
    """Write a program that is Python on an emulated processor, and takes itself for that: so it can start others."""
    python = f"PYTHONHOME={root}/usr exec {EMULATOR} -0 $0 -L {root} -cpu max {root}/usr/bin/python{_PYTHON}"
    program.write_text(f'#!/bin/sh\n{python} "$@"\n')
    program.chmod(0o755)


def _install(folder: Path, *what: str) -> None:
    target = folder / "usr/lib/python3/dist-packages"
    platforms = [f"--platform={platform}" for platform in _PLATFORMS]
    options = ["--quiet", "--disable-pip-version-check", "--no-compile", "--only-binary=:all:", *platforms]
    options += [f"--python-version={_PYTHON}", f"--constraint={ROOT / 'constraints.txt'}", f"--target={target}"]
    _run(sys.executable, "-m", "pip", "install", *options, *what)


def _run(*command: str, stdin: IO[bytes] | None = None) -> None:
    done = subprocess.run(command, stdin=stdin, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
