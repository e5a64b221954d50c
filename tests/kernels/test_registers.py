"""The compiler is asked for the vector registers of its target, whoever chose the target."""

from __future__ import annotations

import os
import platform
import sys

import pytest
from llvmlite import binding

from dist_relu.kernels.registers import Registers, registers_of
from tests.programs import run

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the targets are those of x86-64")

AVX512 = "+avx,+avx2,+fma,+avx512f,+avx512vl,+avx512bw,+avx512dq"


@pytest.mark.parametrize(
    ("processor", "features", "expected"),
    [
        ("x86-64", "", Registers(16, 16)),
        ("haswell", "", Registers(16, 32)),
        ("znver3", "", Registers(16, 32)),
        ("znver4", "", Registers(32, 64)),
        ("sapphirerapids", "", Registers(32, 64)),
        ("znver4", "-avx512f", Registers(16, 32)),
        ("haswell", AVX512, Registers(32, 64)),
        ("sapphirerapids", "-avx512f", Registers(16, 32)),
    ],
)
def test_name_and_features_decide_together(processor: str, features: str, expected: Registers) -> None:
    target = binding.Target.from_default_triple()
    assert registers_of(target.create_target_machine(cpu=processor, features=features)) == expected


def test_tiles_are_those_of_the_target_that_the_user_has_chosen() -> None:
    chosen = {"NUMBA_CPU_NAME": "znver3", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"}
    program = "from dist_relu.kernels import tiles; print(tiles.VECTOR_BYTES, tiles.TALLEST[2])"
    done = run([sys.executable, "-c", program], env={**os.environ, **chosen})
    assert done.stdout == "32 6\n", done.stderr


@pytest.mark.parametrize("processor", ["generic", "neoverse-n1", "neoverse-v1"])
def test_arm64_has_the_registers_of_neon(processor: str) -> None:
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    target = binding.Target.from_triple("aarch64-unknown-linux-gnu")
    assert registers_of(target.create_target_machine(cpu=processor)) == Registers(32, 16)


def test_a_processor_without_fused_multiply_add_is_refused_with_a_word_on_what_is_needed() -> None:
    chosen = {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "+sse4.2"}
    done = run([sys.executable, "-c", "import dist_relu.kernels.products"], env={**os.environ, **chosen})
    assert "ImportError: dist_relu needs fused multiply-add" in done.stderr
