"""Compiles Triton kernels to machine code without a GPU, and reads what it needs."""

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

_CUOBJDUMP = Path(nvidia.__file__).parent / "bin/cuobjdump"


class Resources(NamedTuple):
    """The resources of a multiprocessor that a kernel takes."""

    registers: int  # of a thread
    stack: int  # bytes of a thread, in the GPU's memory
    spills: int  # instructions that move registers to the stack and back
    looped_spills: int  # those of them inside of loops
    shared: int  # bytes of a program, as a launch asks for them


def compile_kernel(
    function: triton.JITFunction,
    types: dict[str, str],
    constants: dict[str, object],
    warps: int,
    stages: int,
    architecture: int,
    tmp: Path,
) -> Resources:
    """Compile a kernel as a launch would.

    Pointers are multiples of 16 bytes, like PyTorch's. Integers on which a launch would
    specialize are multiples of 16.

    Args:
        function: the kernel.
        types: the arguments' types by name, in Triton's words (``*bf16``, ``i32``).
        constants: the values of the constexpr arguments by name.
        warps, stages: Triton's ``num_warps`` and ``num_stages``.
        architecture: the compute capability, such as 90.
        tmp: a folder for files.

    Raises:
        Exception: the errors of Triton and ptxas, if the kernel does not compile.
    """
    names = [parameter.name for parameter in function.params]
    assert set(names) == {*types, *constants}
    signature = {name: types.get(name, "constexpr") for name in names}
    source = ASTSource(
        function,
        signature,
        {(names.index(name),): value for name, value in constants.items()},
        {
            (parameter.num,): [["tt.divisibility", 16]]
            for parameter in function.params
            if signature[parameter.name][0] in "*i" and not parameter.do_not_specialize
        },
    )
    with mock.patch.dict(os.environ, TRITON_CACHE_DIR=str(tmp / "triton")):
        compiled = triton.compile(
            source,
            target=GPUTarget("cuda", architecture, 32),
            options=dict(num_warps=warps, num_stages=stages),
        )
    cubin = tmp / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    usage, code = (
        subprocess.run(
            [_CUOBJDUMP, flag, cubin], capture_output=True, text=True, check=True
        ).stdout
        for flag in ("-res-usage", "-sass")
    )
    return Resources(
        registers=int(re.search(r"REG:(\d+)", usage)[1]),
        stack=int(re.search(r"STACK:(\d+)", usage)[1]),
        **_spills(code),
        shared=compiled.metadata.shared,
    )


def _spills(code: str) -> dict[str, int]:
    """Count the spills in disassembled code: all, and those inside of loops."""
    instructions = [
        (int(address, 16), text)
        for address, text in re.findall(r"/\*([0-9a-f]{4,5})\*/\s+(.*?);", code)
    ]
    # A loop reaches from the target of a backward branch to the branch. Branches
    # without a condition are no loops: they return from code for waiting at the end.
    loops = [
        (int(target[1], 16), address)
        for address, text in instructions
        if (target := re.search(r"\bBRA\b.* 0x([0-9a-f]+)", text))
        and int(target[1], 16) < address
        and not text.startswith("BRA 0x")
    ]
    spills = [
        address for address, text in instructions if re.search(r"\b(LDL|STL)\b", text)
    ]
    looped = [
        spill for spill in spills if any(start <= spill <= end for start, end in loops)
    ]
    return dict(spills=len(spills), looped_spills=len(looped))
