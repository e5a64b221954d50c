"""Damaged folders of IDX files, which have no digest."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.long.data_files import IdxSets, attempt_idx, make_idx_sets


def prepare(folder: Path) -> IdxSets:
    return make_idx_sets(folder, lambda content: content)


def attempt(sets: IdxSets, rng: np.random.Generator) -> None:
    attempt_idx(sets, rng, is_told=False)
