"""What a check found, and how it is told: on a terminal, in a pipe, and to a program."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class State(Enum):
    """How bad a finding is.  Only a failure keeps training from working."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Finding:
    """What is the case with `subject`, and what to do about it.  numbers: the same for programs, units in the names."""

    subject: str
    state: State
    found: str
    advice: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """Something to look at."""

    subject: str
    look: Callable[[], Finding]


def carry_out(check: Check) -> Finding:
    """Carry out a check, and return its finding; a crash is a finding, too."""
    try:
        return check.look()
    except Exception as error:
        found = f"This check crashed: {type(error).__name__}: {error}."
        return Finding(check.subject, State.FAILURE, found, "Please report it, with this line.")


_STATE_WIDTH, _SUBJECT_WIDTH = 8, 14


def as_text(finding: Finding, width: int) -> str:
    """Write the finding as lines of at most `width` columns: state, subject, what was found, and what to do."""
    indent = " " * (_STATE_WIDTH + _SUBJECT_WIDTH)
    head = f"{finding.state.value:<{_STATE_WIDTH}}{finding.subject:<{_SUBJECT_WIDTH}}"
    lines = textwrap.wrap(finding.found, width, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False)
    if finding.advice:
        lines += textwrap.wrap(
            finding.advice, width, initial_indent=f"{indent}> ", subsequent_indent=f"{indent}  ", break_on_hyphens=False
        )
    return "\n".join(lines)


def verdict(findings: Sequence[Finding]) -> str:
    """Say in one line whether training will work."""
    failures = sorted({finding.subject for finding in findings if finding.state is State.FAILURE})
    warnings = sum(finding.state is State.WARNING for finding in findings)
    if failures:
        return f"Training will not work, or not everywhere. See {', '.join(failures)} above."
    if warnings:
        return f"Training will work. {warnings} {'warning' if warnings == 1 else 'warnings'} above."
    return "Training will work."


def works(findings: Sequence[Finding]) -> bool:
    """Tell whether nothing failed."""
    return all(finding.state is not State.FAILURE for finding in findings)


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Write all findings for programs."""
    return {
        "works": works(findings),
        "findings": [
            {
                "subject": finding.subject,
                "state": finding.state.value,
                "found": finding.found,
                "advice": finding.advice,
                "numbers": dict(finding.numbers),
            }
            for finding in findings
        ],
    }


def size(size_bytes: float) -> str:
    """Write bytes in the unit that suits them: "512 MiB", "23.1 GiB"."""
    return f"{size_bytes / 2**30:,.1f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:,.0f} MiB"
