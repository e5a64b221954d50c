"""What vector registers the compiler's target has: their number and width decide how large a tile of a product may be.

The compiler is asked itself: it translates a few lines that keep many wide vectors at once, and the registers that it
names are those that it has. Lists of features and names of processors would not tell, since either may be set by the
user, and imply the other.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from llvmlite import binding, ir
from numba.core.registry import cpu_target


class Registers(NamedTuple):
    """The vector registers of a processor."""

    number: int
    width_bytes: int


_X86_WIDTHS_BYTES = {"x": 16, "y": 32, "z": 64}
_NEON = Registers(32, 16)
_NUM_KEPT = 20
"""More than 16, and fewer than 32."""


def registers_of(machine: binding.TargetMachine) -> Registers:
    """Tell which vector registers LLVM uses for a target."""
    assembly = machine.emit_assembly(_module_that_keeps_vectors())
    names = re.findall(r"%([xyz])mm(\d+)", assembly)
    if not names:
        return _NEON
    width_bytes = max(_X86_WIDTHS_BYTES[kind] for kind, _ in names)
    return Registers(32 if max(int(number) for _, number in names) >= 16 else 16, width_bytes)


def _module_that_keeps_vectors() -> binding.ModuleRef:
    """Build a function that loads vectors of 64 bytes, and then, not before, stores them again."""
    module, index = ir.Module(), ir.IntType(32)
    pointer = ir.VectorType(ir.FloatType(), 16).as_pointer()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer]), "keep")
    builder = ir.IRBuilder(function.append_basic_block())
    places = [builder.gep(function.args[0], [index(i)]) for i in range(_NUM_KEPT + 1)]
    kept = [builder.load(place, align=4) for place in places[1:]]
    builder.asm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", [], True)
    for vector, place in zip(kept, places[:-1], strict=True):
        builder.store(vector, place, align=4)
    builder.ret_void()
    parsed = binding.parse_assembly(str(module))
    parsed.triple = binding.get_process_triple()
    return parsed


def has_fma(machine: binding.TargetMachine) -> bool:
    """Tell whether a target multiplies and adds in one instruction; else LLVM calls a function for it."""
    module, number = ir.Module(), ir.FloatType()
    function = ir.Function(module, ir.FunctionType(number, [number] * 3), "multiply_and_add")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(builder.fma(*function.args))
    parsed = binding.parse_assembly(str(module))
    parsed.triple = machine.triple
    return re.search(r"\bfmaf\b", machine.emit_assembly(parsed)) is None


def _target() -> binding.TargetMachine:
    """Return what kernels are compiled for.  Raises ImportError if it is without fused multiply-add."""
    machine = cpu_target.target_context.codegen()._tm
    if not has_fma(machine):
        raise ImportError(
            "dist_relu needs fused multiply-add, without which results would not have the same bits everywhere. The "
            "processor that Numba compiles for has none; expected x86-64 with FMA (since Haswell and Zen) or arm64. If "
            "this processor is one, unset NUMBA_CPU_NAME and NUMBA_CPU_FEATURES, or add +fma to the latter."
        )
    return machine


REGISTERS = registers_of(_target())
"""Those of the target that kernels are compiled for."""
