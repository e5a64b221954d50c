"""The conformance suite passes in worlds that a launcher makes: one job for all of its statements."""

from __future__ import annotations

import pytest

from tests.cases import chaos, long
from tests.programs import UNDER_MPI, mpirun, mpirun_on_nodes, run


@pytest.mark.parametrize("ranks", chaos(1, 2, 3, 4))
def test_the_conformance_suite_passes_under_mpirun(ranks: int) -> None:
    done = run(mpirun(ranks, *UNDER_MPI))
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@pytest.mark.parametrize("nodes", [*long("ab"), *chaos("abac", "abb", "aabc", "abc")])
def test_the_conformance_suite_passes_on_several_nodes(nodes: str) -> None:
    done = run(mpirun_on_nodes(nodes, *UNDER_MPI))
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
