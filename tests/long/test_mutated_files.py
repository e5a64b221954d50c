"""Damaged or odd files by the thousand: none is taken for what it is not, and none takes the reader down."""

from __future__ import annotations

import pytest

from tests.cases import chaos, long
from tests.long.harness import check_mutations

DATA = ["idx_plain", "idx_gzipped", "npz_files", "npy_files", "foreign_files"]
KINDS = ["models", "logs", "model_files", *DATA, "states", "onnx_files"]


@pytest.mark.parametrize("count", [*long(150), *chaos(10_000)])
@pytest.mark.parametrize("kind", KINDS)
def test_files_of_strangers_are_read_or_refused(kind: str, count: int) -> None:
    check_mutations(kind, count)


@pytest.mark.long
def test_checkpoints_of_strangers_are_read_or_refused() -> None:
    check_mutations("states", 300)
