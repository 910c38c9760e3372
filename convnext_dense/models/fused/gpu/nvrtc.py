"""Compiles CUDA C++ with NVRTC.

NVRTC comes with PyTorch, so no compiler has to be installed. Compiling needs no GPU.
"""

import hashlib
import json

from convnext_dense.utils.text import reason

from . import disk_cache


class Unavailable(RuntimeError):
    """A kernel cannot be compiled or loaded; the message says why."""


class NoConvolution(Unavailable):
    """The CUDA C++ convolution cannot be compiled: no plan that uses it works."""


def compile(source: str, defines: dict[str, int | str], architecture: str) -> bytes:
    """Compile CUDA C++, or read the result of an earlier run from the disk cache.

    Args:
        source: the whole source; it has no includes.
        defines: macros and their values.
        architecture: a GPU architecture such as "sm_90", not a virtual one.

    Returns:
        The cubin.

    Raises:
        Unavailable: NVRTC or its Python bindings are missing, NVRTC does not know the
            architecture, or the source does not compile.
    """
    nvrtc, version = _nvrtc()
    parts = [source, sorted(defines.items()), architecture, version]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    name = f"{digest}.cubin"
    cubin = disk_cache.read(name)
    if cubin is None:
        cubin = _compile(nvrtc, source, defines, architecture)
        disk_cache.write(name, cubin)
    return cubin


def _nvrtc():
    """The Python bindings of NVRTC, and NVRTC's version as a list.

    Raises:
        Unavailable: one of them is missing or broken.
    """
    try:
        from cuda.bindings import nvrtc

        result, *version = nvrtc.nvrtcVersion()
    # ImportError if the bindings are missing, RuntimeError if the library is, and other
    # errors if the library does not fit the bindings.
    except Exception as error:
        raise Unavailable(
            "CUDA kernels cannot be compiled: NVRTC or its Python bindings are missing "
            f"({reason(error)}). Install cuda-bindings in the version "
            "of PyTorch's CUDA."
        ) from error
    if result:
        raise Unavailable(f"CUDA kernels cannot be compiled: NVRTC says {result.name}")
    return nvrtc, version


def _compile(nvrtc, source, defines, architecture) -> bytes:
    """The cubin of a source, compiled now."""
    options = [f"--gpu-architecture={architecture}", "--std=c++17"]
    options += [f"--define-macro={name}={value}" for name, value in defines.items()]

    def call(function, *arguments):
        result, *values = function(*arguments)
        if result:
            raise Unavailable(
                f"NVRTC could not compile a kernel for {architecture}: {result.name}"
                f"{_log(nvrtc, program)}"
            )
        return values[0] if values else None

    program = None
    program = call(
        nvrtc.nvrtcCreateProgram, source.encode(), b"convnext_dense.cu", 0, [], []
    )
    try:
        encoded = [option.encode() for option in options]
        call(nvrtc.nvrtcCompileProgram, program, len(encoded), encoded)
        cubin = bytes(call(nvrtc.nvrtcGetCUBINSize, program))
        call(nvrtc.nvrtcGetCUBIN, program, cubin)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return cubin


def _log(nvrtc, program) -> str:
    """The first lines of a program's log, each after a line break."""
    if program is None:
        return ""
    result, size = nvrtc.nvrtcGetProgramLogSize(program)
    if result:
        return ""
    log = bytes(size)
    nvrtc.nvrtcGetProgramLog(program, log)
    lines = log.rstrip(b"\0").decode(errors="replace").strip().splitlines()
    return "".join("\n" + line for line in lines[:8])
