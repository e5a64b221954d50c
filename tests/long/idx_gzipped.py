"""Damaged folders of gzipped IDX files, whose checksums tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.long.data_files import IdxSets, attempt_idx, make_idx_sets, packed


def prepare(folder: Path) -> IdxSets:
    return make_idx_sets(folder, packed)


def attempt(sets: IdxSets, rng: np.random.Generator) -> None:
    attempt_idx(sets, rng, is_told=True)
