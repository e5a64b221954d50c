"""Whether this process may be a rank of an MPI job: what is known of that without any import."""

from __future__ import annotations

import os


def may_be_rank() -> bool:
    """Tell whether a launcher has left word of a rank in the environment, which may be stale.

    `dist_relu.runtime.backends.mpi.launcher` looks closer.
    """
    return "PMI_RANK" in os.environ or "PMIX_RANK" in os.environ
