"""Compiles the kernels of fused blocks for GPUs that need not be here, and prints their PTX.

python -m tests.helpers.compiled_kernels forward GELU 2 90
"""

from __future__ import annotations

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from robustray.models.fused import kernels
from robustray.models.fused.hierarchy import Geometry

MAPS = ("t", "u", "slopes", "gu", "gt", "kept", "scratch")


def compile_kernel(name: str, geometry: Geometry, sides: tuple[int, int], arch: int) -> str:
    """Return the PTX of a kernel for bfloat16 maps of some sides."""
    kernel = getattr(kernels, name)
    constants = geometry.constants(sides) | ({"KEEP": True} if name == "forward" else {})
    constants |= {argument: 1 for argument in kernel.arg_names if argument.endswith("_pixel")}
    kinds = dict.fromkeys(MAPS, "*bf16") | {"weight": "*fp32", "bias": "*fp32"}
    signature = {
        argument: "constexpr" if argument in constants else kinds.get(argument, "i32")
        for argument in kernel.arg_names
    }
    source = ASTSource(kernel, signature, constants)
    options = {"num_warps": 4, "num_stages": 1}
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options).asm["ptx"]


if __name__ == "__main__":
    wanted, act, stride, arch = sys.argv[1:]
    print(compile_kernel(wanted, Geometry(8, 4, 5, 3, int(stride), act), (16, 16), int(arch)))
