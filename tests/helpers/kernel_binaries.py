"""Triton kernels compiled to machine code without a GPU, and what that code needs."""

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
    """What a kernel takes of a multiprocessor."""

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
    """Compile a kernel as a launch would, for compute capability ``architecture``.

    ``types`` has Triton's names of the arguments' types (``*bf16``, ``i32``, ``fp32``),
    ``constants`` the values of the constexpr arguments. Pointers are multiples of 16
    bytes, as PyTorch's are; integers are multiples of 16 where a launch looks at
    them. Files go to ``tmp``.

    Raises whatever Triton and ptxas raise, if the kernel does not compile.
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
    """Counts of the spills in disassembled code, all and those inside of loops."""
    instructions = [
        (int(address, 16), text)
        for address, text in re.findall(r"/\*([0-9a-f]{4,5})\*/\s+(.*?);", code)
    ]
    # From where a branch leads back to, to the branch. Branches without a condition are
    # no loops: they lead back from waiting, which lies behind all else.
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
