"""What training computes has the same bits on every processor: none of it is left to code that differs among them.

NumPy's `exp` and its kin differ in the last digit between AVX2, AVX-512 and arm64, and BLAS and LAPACK sum in other
orders. `sqrt` is exact, sums and `tanh` are the same everywhere; so are `cos`, `pow` and the like of the C library, on
processors with fused multiply-add.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import dist_relu

_PACKAGE = Path(dist_relu.__file__).parent
_COMPUTING = ["kernels", "partition", "data", "nn", "optim", "reduction", "engine", "rl"]
_OTHERS = ["engine/sanity.py", "rl/export.py"]
"""One tells people what looks odd, the other writes programs for elsewhere."""

_ELEMENTARY = ["exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "power", "float_power", "cbrt", "logaddexp"]
_OF_BLAS = ["dot", "vdot", "inner", "matmul", "vecdot", "matvec", "einsum", "tensordot", "linalg", "convolve"]


@pytest.mark.parametrize("folder", _COMPUTING)
def test_nothing_that_training_computes_is_left_to_the_processor(folder: str) -> None:
    found = []
    for path in sorted((_PACKAGE / folder).rglob("*.py")):
        name = str(path.relative_to(_PACKAGE))
        if name not in _OTHERS:
            found += [f"{name}:{line}" for line in _lines(ast.parse(path.read_text()))]
    assert not found


def _lines(tree: ast.AST) -> list[int]:
    """Of calls of such functions of NumPy, and of matrix products by an operator."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.MatMult):
            found.append(node.lineno)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "np":
            found += [node.lineno] * (node.attr in [*_ELEMENTARY, *_OF_BLAS])
    return found
