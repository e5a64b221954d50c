"""`dist-relu doctor`: carries out all checks and tells what they found, line by line."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from dist_relu.cli.types import json_option
from dist_relu.core.files import check_writable, write_json
from dist_relu.doctor import mpi_survey
from dist_relu.doctor.checks import look_at_machine
from dist_relu.doctor.finding import Check, Finding, State, as_json, as_text, carry_out, verdict, works
from dist_relu.doctor.mpi import look_at_mpi
from dist_relu.doctor.ray import look_at_ray
from dist_relu.doctor.survey import judge
from dist_relu.errors import BackendError, WriteError
from dist_relu.runtime.backends import is_under_mpirun

_COLOURS = {State.OK: "green", State.NOTE: "blue", State.WARNING: "yellow", State.FAILURE: "red"}
_MOST_COLUMNS = 110
_RANKS = "ranks"
"""The subject of the finding that some ranks of this MPI job can't be asked."""


@click.command()
@json_option
def doctor(path: Path | None) -> None:
    """Check whether training will work here, and how well.

    Looks at cores, BLAS, memory, clock, disk, data, MPI and Ray, and trains for a moment. Under mpirun it looks at all
    ranks, their nodes and the network between them; where a Ray cluster runs, at the nodes of that one. Exit code 0
    means that training will work; what is not installed is no failure.
    """
    if path:
        try:
            check_writable(path)  # before the work rather than after it
        except WriteError as error:
            raise click.UsageError(f"--json {error}") from None
    if is_under_mpirun() and mpi_survey.launched_rank() > 0:
        mpi_survey.serve(lambda: list(look_at_machine()))
        return
    on_terminal = sys.stdout.isatty() and not is_under_mpirun()  # Open MPI gives its ranks terminals of their own
    width = min(shutil.get_terminal_size().columns, _MOST_COLUMNS) if on_terminal else 80
    findings = []
    for finding in _all_findings():
        findings.append(finding)
        click.echo(_coloured(as_text(finding, width), finding.state), color=on_terminal)
    click.echo(f"\n{verdict(findings)}")
    if path:
        write_json(path, as_json(findings))
    if is_under_mpirun() and any(finding.subject == _RANKS for finding in findings):
        mpi_survey.abort()  # some ranks still wait for questions
    if not works(findings):
        sys.exit(1)


def _all_findings() -> Iterator[Finding]:
    if is_under_mpirun():
        yield from _of_mpi_job()
        return
    here = []
    for finding in look_at_machine():
        here.append(finding)
        yield finding
    yield carry_out(Check("MPI", lambda: look_at_mpi(os.environ)))
    surveys = []

    def look() -> Finding:
        finding, survey = look_at_ray(os.environ)
        surveys.append(survey)
        return finding

    yield carry_out(Check("Ray", look))
    for survey in surveys:
        if survey and len(survey.processes) > 1:
            yield from map(carry_out, judge(survey, here))


def _of_mpi_job() -> Iterator[Finding]:
    try:
        here, survey = mpi_survey.survey(lambda: list(look_at_machine()))
    except Exception as error:  # uncaught, it would leave the other ranks waiting
        told = str(error) if isinstance(error, BackendError) else f"{type(error).__name__}: {error}."
        yield from look_at_machine()
        yield Finding(_RANKS, State.FAILURE, told, "Compare: dist-relu doctor, without mpirun.")
        return
    yield from here
    yield from map(carry_out, judge(survey, here))


def _coloured(text: str, state: State) -> str:
    """Colour the first word; click takes colours out again where they are not wanted."""
    return click.style(state.value, fg=_COLOURS[state], bold=state is State.FAILURE) + text[len(state.value) :]
