"""The hosts of a job, and which of them can be reached."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Host:
    """A host on which a job may have so many ranks."""

    name: str
    slots: int

    def __str__(self) -> str:
        return f"{self.name}:{self.slots}"


def parse_hosts(text: str) -> list[Host]:
    """Read hosts as in "a:2,b:2"; without a number, one rank.  Raises ValueError."""
    return [_host(each, each) for each in text.split(",")]


def read_hosts(path: Path) -> list[Host]:
    """Read a file with a host in each line, as MPICH has it ("a:2") or Open MPI ("a slots=2").  Raises ValueError."""
    try:
        lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read: {error}.") from None
    hosts = [_host(re.sub(r"\s+slots\s*=\s*", ":", line), line) for line in lines if line]
    if not hosts:
        raise ValueError(f"{path} names no host: expected lines such as a:2.")
    return hosts


def _host(text: str, shown: str) -> Host:
    found = re.fullmatch(r"([\w.-]+)(?::([1-9]\d*))?", text.strip(), re.ASCII)
    if not found or found[1].startswith("-"):
        raise ValueError(f"{shown!r} is no host: expected a name and how many ranks it may have, such as a:2.")
    return Host(found[1], int(found[2] or 1))
