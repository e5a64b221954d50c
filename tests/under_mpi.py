"""Runs the conformance suite on the ranks of an MPI job: mpirun -n 4 python tests/under_mpi.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dist_relu.runtime.backends import serve_if_rank

if __name__ == "__main__":
    tests = Path(__file__).parent
    sys.path.insert(0, str(tests.parent))
    serve_if_rank()
    sys.exit(
        pytest.main(
            [
                "--under-mpi",
                "-p",
                "no:cacheprovider",
                "--rootdir",
                str(tests.parent),
                str(tests / "conformance"),
                *sys.argv[1:],
            ]
        )
    )
