"""Which way a stage is computed: tensor-core kernels, Triton kernels, or plain PyTorch.

A way has to be possible on the device, to prove itself, and to be no slower than plain
PyTorch. Times are taken once a device and size and remembered on disk.

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
from .description import StageKind, Types
from .device import INTERPRETED, device_of
from .nvrtc import NoConvolution, Unavailable
from .plan import Plan, plans_for
from .stage import Stage, stage_of

TENSOR_CORES, TRITON, PLAIN = "tensor_cores", "triton", "plain"
WAYS = TENSOR_CORES, TRITON, PLAIN
VARIABLE = "CONVNEXT_DENSE_GPU"
_MOST_ROWS = 2**16  # of a timed map: what wins there wins on larger ones


class Choice(NamedTuple):
    """A way and why it is taken; ``plan`` is None for plain PyTorch."""

    way: str
    plan: Plan | None
    why: str


class Use(NamedTuple):
    """What a stage is chosen for: its maps' width, whether drop path's factors come,
    the type of the normed map, and whether it trains."""

    rows: int
    width: int
    drop: bool
    normed: torch.dtype | None
    train: bool


_choices: dict[tuple, Choice] = {}


def choose(
    kind: StageKind,
    types: Types,
    strides: tuple[int, ...],
    device: int | None,
    use: Use,
) -> Choice:
    """The way for a stage on a device.

    While a CUDA graph is recorded nothing can be tried: plain PyTorch, if the choice
    was not made before.
    """
    key = (
        *(kind._replace(blocks=1), types, strides, device, forced()),
        *(_size(use.rows), depthwise_cuda.strips(use.width), use[2:]),
    )
    choice = _choices.get(key)
    if choice is None:
        if device is not None and torch.cuda.is_current_stream_capturing():
            return Choice(PLAIN, None, "a CUDA graph is recorded with a new shape")
        choice = _choices[key] = _choose(kind, types, strides, device, use)
    return choice


def first_plan(kind: StageKind, work: torch.dtype, device: int | None) -> Plan | None:
    """The plan that is tried first; None if no kernel is."""
    ways, _ = possible(kind.channels, work, device)
    if forced():
        ways = [way for way in ways if way == forced()]
    plans = _plans(kind, work, ways[0], device) if ways else []
    return plans[0] if plans else None


def _plans(
    kind: StageKind, work: torch.dtype, way: str, device: int | None
) -> list[Plan]:
    depthwise = "cuda" if way == TENSOR_CORES else "triton"
    shared = device_of(device).shared
    return plans_for(kind.channels, work, kind.grn, depthwise, shared)


def forced() -> str | None:
    """The way that the environment asks for, or None.

    Raises:
        InputError: it asks for one that there is not.
    """
    name = os.environ.get(VARIABLE)
    if name and name not in WAYS:
        raise InputError(
            f"{VARIABLE}={name}: there is no such way; use {', '.join(WAYS)}"
        )
    return name or None


def possible(
    channels: int, work: torch.dtype, device: int | None
) -> tuple[list[str], str]:
    """The ways that a device can have, the best first, and why none better."""
    if device is None:
        return [TRITON], "Triton's interpreter"
    if torch.version.hip:
        return [], "no kernel here has been run on ROCm"
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


def _choose(kind, types, strides, device, use: Use) -> Choice:
    if forced() == PLAIN:
        return Choice(PLAIN, None, f"{VARIABLE}={PLAIN}")
    ways, why = possible(kind.channels, types.work, device)
    if forced():
        ways = [way for way in ways if way == forced()]
        why = f"{VARIABLE}={forced()}"
    for way in ways:
        for plan in _plans(kind, types.work, way, device):
            stage = stage_of(kind._replace(blocks=1), types, plan, strides, device)
            try:
                proof.prove(stage, use.width, use.drop, use.normed)
            except NoConvolution as error:
                _say(f"ConvNeXt on {_name(device)}: {way} not taken: {error}")
                break  # every plan of this way has the same
            except Unavailable as error:
                _say(f"ConvNeXt on {_name(device)}: {way} not taken: {error}")
                continue
            except torch.cuda.OutOfMemoryError:
                raise  # no reason to think less of a kernel
            except RuntimeError as error:  # what CUDA says, or proof.Failed
                _say(
                    f"ConvNeXt on {_name(device)}: {way} ({plan.forward}, "
                    f"{plan.backward}) not taken for {kind.channels} channels: {error}"
                )
                continue
            if forced() or INTERPRETED:
                return Choice(way, plan, why)
            return _unless_slower(way, stage, use)
    return Choice(PLAIN, None, why or "no kernel proved itself")


def _unless_slower(way: str, stage: Stage, use: Use) -> Choice:
    """The way, or plain PyTorch where that is quicker."""
    if torch.are_deterministic_algorithms_enabled():
        return Choice(way, stage.plan, "deterministic: not by times")
    rows = _size(use.rows)
    key = f"{tuple(stage.kind)} {tuple(map(str, stage.types))} {rows} {use.train} {way}"
    times = _remembered(stage.device).get(key)
    if times is None:
        times = timing.times(stage, rows, use.width, use.train)
        _remember(stage.device, key, times)
    if times is None:
        return Choice(way, stage.plan, "not timed: too little memory")
    mine, plain = times
    why = f"{mine:.2f} ms, plain PyTorch {plain:.2f} ms (one block, {rows} pixels)"
    if mine > plain:
        return Choice(PLAIN, None, f"{way} takes {why}")
    return Choice(way, stage.plan, why)


def _size(rows: int) -> int:
    """Rows to the next power of two: images of ever new sizes are not tried each."""
    return min(1 << max(rows - 1, 0).bit_length(), _MOST_ROWS)


def _remembered(device: int) -> dict:
    data = disk_cache.read(_file(device))
    try:
        known = json.loads(data) if data else {}
    except ValueError:
        known = {}
    return known if isinstance(known, dict) else {}


def _remember(device: int, key: str, times) -> None:
    known = _remembered(device)
    known[key] = times
    disk_cache.write(_file(device), json.dumps(known).encode())


@functools.cache
def _file(device: int) -> str:
    """The file of a device with this driver and these versions."""
    import triton

    driver = getattr(torch._C, "_cuda_getDriverVersion", int)()
    versions = driver, triton.__version__, torch.__version__, __version__
    text = repr((device_of(device), versions))
    return f"times-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


@contextlib.contextmanager
def first_use(device: int) -> Iterator[None]:
    """Say what takes so long where this card is new here, and when it is over."""
    new = disk_cache.read(_file(device)) is None
    if new:
        where = disk_cache.folder() or "memory"
        _say(
            f"ConvNeXt on {_name(device)}: first use here; kernels are compiled (some "
            f"seconds; kept in {where})"
        )
    start = time.perf_counter()
    yield
    if new:
        seconds = time.perf_counter() - start
        _say(f"ConvNeXt on {_name(device)}: compiled in {seconds:.0f} s")


def _name(device: int | None) -> str:
    return "Triton's interpreter" if device is None else device_of(device).name


def _say(text: str) -> None:
    print_log(text, "current")
