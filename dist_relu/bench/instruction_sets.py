"""Instruction sets, and how libraries are held to one of them.

All of them read variables when they are loaded, so it takes a fresh process: Numba for what ours is compiled for,
PyTorch for its own kernels, oneDNN and MKL for products (XLA has oneDNN in it, too), XLA for what it compiles.
"""

from __future__ import annotations

import os

from llvmlite import binding

from dist_relu.core import machine

_NEEDED = {"avx2": ("avx2", "fma"), "avx512": ("avx512f", "avx512bw", "avx512dq", "avx512vl")}
_BEYOND_AVX2 = ("avx512", "avx10", "amx", "evex")

TITLES = {"avx2": "AVX2", "avx512": "AVX-512"}
"""What the instruction sets are called, by their names on the command line."""


def available() -> list[str]:
    """Name the instruction sets that this processor has, and libraries can be held to."""
    features = binding.get_host_cpu_features()
    return [name for name, needed in _NEEDED.items() if all(features.get(feature) for feature in needed)]


def environment_for(instruction_set: str) -> dict[str, str]:
    """Return the variables of a process whose libraries shall use no more than an instruction set.

    instruction_set: a name of TITLES, or "native" for whatever the processor has. Raises ValueError where it doesn't
    have that.
    """
    if instruction_set == "native":
        return {}
    if instruction_set not in available():
        raise ValueError(
            f"This processor ({machine.cpu_name()}) has no {TITLES[instruction_set]}. "
            "Measure with native, or on a machine that has it."
        )
    features = binding.get_host_cpu_features()
    if instruction_set == "avx2":
        for name in features:
            features[name] = features[name] and not name.startswith(_BEYOND_AVX2)
    one_dnn = {"avx2": "AVX2", "avx512": "AVX512_CORE"}
    return {
        "NUMBA_CPU_NAME": binding.get_host_cpu_name(),
        "NUMBA_CPU_FEATURES": features.flatten(),
        "ATEN_CPU_CAPABILITY": instruction_set,
        "ONEDNN_MAX_CPU_ISA": one_dnn[instruction_set],
        "MKL_ENABLE_INSTRUCTIONS": instruction_set.upper(),
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_max_isa={instruction_set.upper()}",
    }
