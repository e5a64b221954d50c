"""Ten thousand damaged or odd files of each kind: none is taken for what it is not, and none takes the reader down."""

from __future__ import annotations

import pytest

from tests.long.harness import check_mutations


@pytest.mark.parametrize(
    "kind", ["models", "logs", "model_files", "idx_plain", "idx_gzipped", "npz_files", "npy_files"]
)
def test_files_of_strangers_are_read_or_refused(kind: str) -> None:
    check_mutations(kind)
