"""Compiles the kernels of fused blocks for GPUs that need not be here, and prints what is in them.

    python -m tests.helpers.compiled_kernels

A line for each kernel: its name, how many barriers its PTX has, and how many loads through the
cache that doesn't see what the program itself has written.
"""

from __future__ import annotations

import re
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from robustray.models.fused import gate_kernels, kernels
from robustray.models.fused.gate import gate_constants
from robustray.models.fused.hierarchy import Geometry

# Maps are bfloat16; what is computed of whole channels and weights, float32.
MAPS = ("t", "u", "slopes", "gu", "gt", "kept", "scratch", "o", "skip", "out", "grad", "of_o")
NUMBERS = ("weight", "bias", "gates", "hidden", "means", "scale", "shift", "squeeze", "excite")


def compile_kernel(kernel: Any, constants: dict[str, Any], arch: int) -> str:
    """Return the PTX of a kernel for maps that are contiguous."""
    ones = {argument: 1 for argument in kernel.arg_names if argument.endswith("_pixel")}
    kinds = dict.fromkeys(MAPS, "*bf16") | dict.fromkeys(NUMBERS, "*fp32")
    if kernel in (gate_kernels.forward, gate_kernels.backward):
        kinds["slopes"] = "*fp32"
    fixed = constants | ones
    signature = {
        argument: "constexpr" if argument in fixed else kinds.get(argument, "i32")
        for argument in kernel.arg_names
    }
    source = ASTSource(kernel, signature, fixed)
    options = {"num_warps": 8, "num_stages": 1}
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options).asm["ptx"]


def main() -> None:
    """Compile each kernel once, for one of two generations."""
    gate = gate_constants(320, 1024, 5, 1.0)
    strided = Geometry(8, 4, 5, 3, 2, "GELU").constants((16, 16)) | {"KEEP": True}
    smooth = Geometry(8, 4, 5, 3, 1, "Mish").constants((16, 16)) | {"KEEP": False}
    plain = Geometry(8, 4, 14, 3, 1, "ReLU").constants((16, 16))
    for name, kernel, constants, arch in (
        ("strided", kernels.forward, strided, 90),
        ("smooth", kernels.forward, smooth, 80),
        ("back", kernels.backward, plain, 90),
        ("gate", gate_kernels.forward, gate, 90),
        ("gate-back", gate_kernels.backward, gate, 80),
    ):
        ptx = compile_kernel(kernel, constants, arch)
        print(name, len(re.findall(r"\sbar\.sync\s", ptx)), ptx.count("ld.global.nc"))


if __name__ == "__main__":
    main()
