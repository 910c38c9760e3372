"""Chooses how a stage is computed: tensor-core kernels, Triton kernels, plain PyTorch.

Each of these is called a way. A way is taken if the device supports it, if its kernels
pass ``proof``, and if it is no slower than plain PyTorch. Times are measured once for
each device and size, and stored on disk.

``CONVNEXT_DENSE_GPU=tensor_cores``, ``triton`` or ``plain`` forces a way, for
diagnosis.
"""

import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from mmengine.logging import print_log

from convnext_dense.errors import InputError
from convnext_dense.version import __version__

from . import depthwise_cuda, disk_cache, proof, timing
from .description import StageSpec, Types
from .device import INTERPRETED, device_of
from .nvrtc import NoConvolution, Unavailable
from .plan import Plan, plans_for
from .stage import Stage, stage_of

TENSOR_CORES, TRITON, PLAIN = "tensor_cores", "triton", "plain"
WAYS = TENSOR_CORES, TRITON, PLAIN
VARIABLE = "CONVNEXT_DENSE_GPU"
_MOST_ROWS = 2**16  # of a timed map; the way that wins there wins on larger maps


class Choice(NamedTuple):
    """A way.

    Attributes:
        way: one of ``WAYS``.
        plan: the plan of its kernels; None for plain PyTorch.
        why: the reason for the choice.
    """

    way: str
    plan: Plan | None
    why: str


class Use(NamedTuple):
    """The use that a way is chosen for.

    Attributes:
        rows: the pixels of the stage's maps, of all images.
        width: the width of the maps.
        drop: whether drop path factors are passed.
        normed: the type of the normed map, or None.
        train: whether a backward pass follows.
    """

    rows: int
    width: int
    drop: bool
    normed: torch.dtype | None
    train: bool


_choices: dict[tuple, Choice] = {}


def choose(
    spec: StageSpec,
    types: Types,
    strides: tuple[int, ...],
    device: int | None,
    use: Use,
) -> Choice:
    """The way for a stage on a device, from the cache or newly chosen.

    While a CUDA graph is recorded no kernel can be tried. A choice that was not made
    before is then plain PyTorch.

    Args:
        spec, types: the stage and its number types.
        strides: of the entrance's convolution weight.
        device: the GPU's index, or None for Triton's interpreter.
        use: what the stage is used for.
    """
    key = (
        *(spec._replace(blocks=1), types, strides, device, forced()),
        *(_size(use.rows), depthwise_cuda.strips(use.width), use[2:]),
    )
    choice = _choices.get(key)
    if choice is None:
        if device is not None and torch.cuda.is_current_stream_capturing():
            return Choice(
                PLAIN, None, "a CUDA graph is being recorded with a new shape"
            )
        choice = _choices[key] = _choose(spec, types, strides, device, use)
    return choice


def first_plan(spec: StageSpec, work: torch.dtype, device: int | None) -> Plan | None:
    """The plan that is tried first; None if no kernel is tried."""
    ways, _ = possible(spec.channels, work, device)
    if forced():
        ways = [way for way in ways if way == forced()]
    plans = _plans(spec, work, ways[0], device) if ways else []
    return plans[0] if plans else None


def _plans(
    spec: StageSpec, work: torch.dtype, way: str, device: int | None
) -> list[Plan]:
    """The plans of a way, the best first."""
    depthwise = "cuda" if way == TENSOR_CORES else "triton"
    shared = device_of(device).shared
    return plans_for(spec.channels, work, spec.grn, depthwise, shared)


def forced() -> str | None:
    """The way that the environment asks for, or None.

    Raises:
        InputError: there is no such way.
    """
    name = os.environ.get(VARIABLE)
    if name and name not in WAYS:
        raise InputError(
            f"{VARIABLE}={name}: unknown value. Use one of {', '.join(WAYS)}, or unset "
            "it"
        )
    return name or None


def possible(
    channels: int, work: torch.dtype, device: int | None
) -> tuple[list[str], str]:
    """The ways that a device supports, the best first; and why no better one."""
    if device is None:
        return [TRITON], "Triton's interpreter"
    if torch.version.hip:
        return [], "the kernels are not tested on ROCm"
    try:
        import triton  # noqa: F401
    except ImportError:
        return [], "Triton is not installed"
    capability = device_of(device).capability
    if capability < (7, 5):
        return [], f"compute capability {capability[0]}.{capability[1]} is below 7.5"
    if work == torch.bfloat16 and capability < (8, 0):
        return [], "bf16 needs compute capability 8.0"
    if depthwise_cuda.supports(channels, work, capability):
        return [TENSOR_CORES, TRITON], ""
    why = "tensor cores take 16-bit maps of a multiple of 8 channels, from sm_80 on"
    return [TRITON], why


def _choose(spec, types, strides, device, use: Use) -> Choice:
    """The first plan whose kernels pass their check, if it is fast enough."""
    if forced() == PLAIN:
        return Choice(PLAIN, None, f"{VARIABLE}={PLAIN}")
    ways, why = possible(spec.channels, types.work, device)
    if forced():
        ways = [way for way in ways if way == forced()]
        why = f"{VARIABLE}={forced()}"
    for way in ways:
        for plan in _plans(spec, types.work, way, device):
            stage = stage_of(spec._replace(blocks=1), types, plan, strides, device)
            try:
                proof.prove(stage, use.width, use.drop, use.normed)
            except NoConvolution as error:
                _log(f"ConvNeXt on {_name(device)}: {way} is not used: {error}")
                break  # all plans of this way use that convolution
            except Unavailable as error:
                _log(f"ConvNeXt on {_name(device)}: {way} is not used: {error}")
                continue
            except torch.cuda.OutOfMemoryError:
                raise  # that does not speak against the kernel
            except RuntimeError as error:  # an error of CUDA, or proof.Failed
                _log(
                    f"ConvNeXt on {_name(device)}: {way} ({plan.forward}, "
                    f"{plan.backward}) is not used for {spec.channels} channels: "
                    f"{error}"
                )
                continue
            if forced() or INTERPRETED:
                return Choice(way, plan, why)
            return _unless_slower(way, stage, use)
    return Choice(PLAIN, None, why or "no kernel passed its check")


def _unless_slower(way: str, stage: Stage, use: Use) -> Choice:
    """The way, or plain PyTorch if that is faster."""
    if torch.are_deterministic_algorithms_enabled():
        return Choice(way, stage.plan, "deterministic algorithms: not chosen by time")
    rows = _size(use.rows)
    key = f"{tuple(stage.spec)} {tuple(map(str, stage.types))} {rows} {use.train} {way}"
    times = _remembered(stage.device).get(key)
    if times is None:
        times = timing.times(stage, rows, use.width, use.train)
        _remember(stage.device, key, times)
    if times is None:
        return Choice(way, stage.plan, "not timed: too little GPU memory")
    kernels, plain = times
    why = f"{kernels:.2f} ms, plain PyTorch {plain:.2f} ms (one block, {rows} pixels)"
    if kernels > plain:
        return Choice(PLAIN, None, f"{way} takes {why}")
    return Choice(way, stage.plan, why)


def _size(rows: int) -> int:
    """Rows rounded up to a power of two, so that not every image size is tried."""
    return min(1 << max(rows - 1, 0).bit_length(), _MOST_ROWS)


def _remembered(device: int | None) -> dict:
    """The times measured on a device, from disk."""
    data = disk_cache.read(_file(device))
    try:
        known = json.loads(data) if data else {}
    except ValueError:
        known = {}
    return known if isinstance(known, dict) else {}


def _remember(device: int | None, key: str, times: list[float] | None) -> None:
    """Add a measurement to the file of times."""
    known = _remembered(device)
    known[key] = times
    disk_cache.write(_file(device), json.dumps(known).encode())


@functools.cache
def _file(device: int | None) -> str:
    """The name of the file of times of a device, this driver and these versions."""
    import triton

    driver = getattr(torch._C, "_cuda_getDriverVersion", int)()
    versions = driver, triton.__version__, torch.__version__, __version__
    text = repr((device_of(device), versions))
    return f"times-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


@contextlib.contextmanager
def first_use(device: int) -> Iterator[None]:
    """Log the start and end of compiling, if the cache does not know this GPU yet."""
    new = disk_cache.read(_file(device)) is None
    if new:
        where = disk_cache.folder() or "memory"
        _log(
            f"ConvNeXt on {_name(device)}: first use. Compiling kernels takes some "
            f"seconds; they are stored in {where}"
        )
    start = time.perf_counter()
    yield
    if new:
        seconds = time.perf_counter() - start
        _log(f"ConvNeXt on {_name(device)}: kernels compiled in {seconds:.0f} s")


def _name(device: int | None) -> str:
    """The device's name in messages."""
    return "Triton's interpreter" if device is None else device_of(device).name


def _log(text: str) -> None:
    """Log to mmengine's current logger."""
    print_log(text, "current")
