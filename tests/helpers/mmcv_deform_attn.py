"""mmcv's CUDA kernels of multi-scale deformable attention, without a compiled mmcv.

NVRTC compiles the source that mmcv installs
(``mmcv/ops/csrc/common/cuda/ms_deform_attn_cuda_kernel.cuh``). The launches have the
grids, block sizes and zeroed outputs of mmcv's host code
(``mmcv/ops/csrc/pytorch/cuda/ms_deform_attn_cuda.cu``), for heads of 32 channels.
"""

import ctypes
import functools
import importlib.util
import re
from pathlib import Path

import torch
from torch import Tensor

from convnext_dense.models.fused.gpu import native, nvrtc

CHANNELS = 32  # of a head: mmcv chooses its backward kernel by this number
_THREADS, _MOST_BLOCKS = 512, 4096  # THREADS_PER_BLOCK and GET_BLOCKS
_KERNEL = "ops/csrc/common/cuda/ms_deform_attn_cuda_kernel.cuh"
FORWARD = "ms_deformable_im2col_gpu_kernel"
BACKWARD = "ms_deformable_col2im_gpu_kernel_shm_blocksize_aware_reduce_v1"

# What the kernels use of the headers of mmcv and PyTorch. Half has the arithmetic of
# c10::Half: each operation is computed in fp32 and rounded.
_HEADERS = """
typedef long long int64_t;
#define CUDA_1D_KERNEL_LOOP(i, n)                              \\
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < (n); \\
       i += blockDim.x * gridDim.x)

struct Half {
  unsigned short bits;
  Half() = default;
  __device__ Half(float value) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  }
  __device__ Half(double value) : Half((float)value) {}
  __device__ Half(int value) : Half((float)value) {}
  __device__ operator float() const {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
  }
};
#define OPERATOR(op)                                                                \\
  __device__ Half operator op(Half a, Half b) { return (float)a op (float)b; }      \\
  __device__ Half operator op(Half a, int b) { return (float)a op (float)Half(b); } \\
  __device__ Half operator op(int a, Half b) { return (float)Half(a) op (float)b; } \\
  __device__ double operator op(Half a, double b) { return (double)(float)a op b; } \\
  __device__ Half& operator op##=(Half& a, Half b) { return a = a op b; }
OPERATOR(+)
OPERATOR(-)
OPERATOR(*)
__device__ void atomicAdd(Half* address, Half value) {
  asm volatile("red.global.add.noftz.f16 [%0], %1;" ::"l"(address), "h"(value.bits)
               : "memory");
}
"""
_INSTANCES = f"""
template __global__ void {FORWARD}<SCALAR>(
    int, const SCALAR*, const int64_t*, const int64_t*, const SCALAR*, const SCALAR*,
    int, int, int, int, int, int, int, SCALAR*);
template __global__ void {BACKWARD}<SCALAR, {CHANNELS}>(
    int, const SCALAR*, const SCALAR*, const int64_t*, const int64_t*, const SCALAR*,
    const SCALAR*, int, int, int, int, int, int, int, SCALAR*, SCALAR*, SCALAR*);
"""
SCALARS = {torch.float32: "float", torch.float16: "Half"}


def compile_kernels(dtype: torch.dtype, architecture: str) -> bytes:
    """The cubin with both kernels for a type of ``SCALARS``.

    Raises:
        Unavailable: mmcv's source is not installed, or NVRTC is missing.
    """
    package = importlib.util.find_spec("mmcv")
    file = Path(package.origin).parent / _KERNEL if package else None
    if file is None or not file.is_file():
        raise nvrtc.Unavailable("the source of mmcv's kernels is not installed")
    kernels = re.sub(r"#include.*", "", file.read_text())
    source = "\n".join((_HEADERS, kernels, _INSTANCES))
    return nvrtc.compile(source, {"SCALAR": SCALARS[dtype]}, architecture)


def kernel_name(cubin: bytes, kernel: str) -> bytes:
    """The mangled name of a kernel template's instance."""
    names = re.findall(rb"_Z\d+%sI\w+" % kernel.encode(), cubin)
    return min(names, key=len)


@functools.cache
def _functions(dtype: torch.dtype, device: int) -> tuple[ctypes.c_void_p, ...]:
    """The forward and the backward kernel, loaded on the current device."""
    major, minor = torch.cuda.get_device_capability(device)
    cubin = compile_kernels(dtype, f"sm_{major}{minor}")
    cuda = native.loaded().cuda
    module = ctypes.c_void_p()
    _check(cuda.cuModuleLoadData(ctypes.byref(module), cubin))
    functions = []
    for kernel in (FORWARD, BACKWARD):
        function = ctypes.c_void_p()
        name = kernel_name(cubin, kernel)
        _check(cuda.cuModuleGetFunction(ctypes.byref(function), module, name))
        functions.append(function)
    return tuple(functions)


def _check(code: int) -> None:
    if code:
        raise RuntimeError(f"CUDA's driver refuses mmcv's kernel: error {code}")


def _launch(
    function: ctypes.c_void_p, threads: int, numbers: int, arguments: list, device: int
) -> None:
    """Launch a kernel that takes ``numbers`` numbers, a thread each."""
    values = [
        ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else ctypes.c_int(a)
        for a in (numbers, *arguments)
    ]
    addresses = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
    blocks = min(-(-numbers // threads), _MOST_BLOCKS)
    stream = ctypes.c_void_p(torch.cuda.current_stream(device).cuda_stream)
    cuda = native.loaded()
    _check(
        cuda.launch(function, blocks, 1, 1, threads, 1, 1, 0, stream, addresses, None)
    )


def _sizes(value: Tensor, locations: Tensor) -> list[int]:
    """batch, cells, heads, channels, levels, queries and points."""
    n, cells, heads, channels = value.shape
    assert channels == CHANNELS
    _, queries, _, levels, points, _ = locations.shape
    return [n, cells, heads, channels, levels, queries, points]


def ms_deform_attn_forward(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """mmcv's op, for a batch of at most ``im2col_step``."""
    n, _, heads, channels = value.shape
    out = value.new_zeros(n, locations.shape[1], heads * channels)
    forward, _ = _functions(value.dtype, value.device.index)
    arguments = [value, shapes, starts, locations, weights, *_sizes(value, locations)]
    _launch(forward, _THREADS, out.numel(), [*arguments, out], value.device.index)
    return out


def ms_deform_attn_backward(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    weights: Tensor,
    grad: Tensor,
    of_value: Tensor,
    of_locations: Tensor,
    of_weights: Tensor,
    im2col_step: int,
) -> None:
    """mmcv's op, for a batch of at most ``im2col_step``."""
    _, backward = _functions(value.dtype, value.device.index)
    arguments = [grad, value, shapes, starts, locations, weights]
    arguments += [*_sizes(value, locations), of_value, of_locations, of_weights]
    _launch(backward, CHANNELS, grad.numel(), arguments, value.device.index)
