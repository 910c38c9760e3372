"""Inference and training steps of the backbones alone."""

import copy
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from ..backbone import ConvNeXt
from ..errors import InputError
from ..fused.precision import precision_of
from . import clock, peers
from .peers import OURS, Peer

LAYOUTS = dict(nchw=torch.contiguous_format, channels_last=torch.channels_last)


class Setting(NamedTuple):
    """What is compared with what: everything but the library."""

    size: int
    mode: str  # inference or training
    dtype: str  # fp32, or bf16: under autocast
    execution: str  # eager or compiled

    def __str__(self) -> str:
        return f"{self.size} x {self.size}, {self.mode}, {self.dtype}, {self.execution}"


class Row(NamedTuple):
    """One library in one setting.

    Attributes:
        layout: the memory format in which it is the fastest, of NCHW and
            channels_last.
        ms: median milliseconds of a call.
        ratio: to the fastest peer; below 1 is faster.
        floor: share of ``ms`` that the matrix products alone take here.
        kept: bytes kept for the backward pass, without parameters; the least of
            both memory formats, as ``peak``.
        peak: the most bytes allocated at once, beside the weights.
    """

    library: str
    layout: str
    ms: float
    ratio: float
    floor: float
    kept: int
    peak: int


def compare(
    arch: str,
    settings: Sequence[Setting],
    libraries: Sequence[str] | None,
    batch: int,
    device: str,
    seconds: float,
    use_grn: bool = False,
    drop_path_rate: float = 0.0,
) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """Each setting in words, and what measures its rows, ours first.

    Args:
        arch: of ``archs.ARCHS``.
        settings: what to compare, one after the other.
        libraries: with which; all that are installed if None.
        batch: images in a step.
        device: cpu or cuda.
        seconds: how long to time each setting.
        use_grn: compare ConvNeXt V2.
        drop_path_rate: in training, of every library.

    Raises:
        InputError: a library computes something else; nothing is timed then.
    """
    torch.manual_seed(0)
    ours = ConvNeXt(
        arch,
        drop_path_rate=drop_path_rate,
        layer_scale_init_value=float(not use_grn),
        use_grn=use_grn,
    )
    with torch.no_grad():  # far from neutral, so that whatever is forgotten shows
        for parameter in ours.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    all_peers = peers.build(ours, libraries or peers.installed())
    everyone = [Peer(OURS, ours, normed=True), *all_peers]
    for peer in everyone:
        peer.module.to(device)
    x = torch.rand(1, 3, 64, 96, device=device)
    with torch.backends.cudnn.flags(allow_tf32=False):
        different = peers.disagreements(ours, all_peers, x)
    if different:
        raise InputError("not the same models: " + "; ".join(different))
    for setting in settings:
        common = everyone, ours, batch, device, seconds
        yield str(setting), functools.partial(_compare_in, setting, *common)


def _compare_in(setting, everyone, ours, batch, device, seconds) -> list[Row]:
    image = torch.rand(batch, 3, setting.size, setting.size, device=device)
    calls = [
        _call(setting, peer, image, layout, device)
        for peer, layout in itertools.product(everyone, LAYOUTS)
    ]
    floor = _products(setting, ours, image)
    steps = [*(call.step for call in calls), floor]
    *times, least = clock.in_turn(steps, device, seconds)

    found = {}
    for call, ms in zip(calls, times, strict=True):
        measured = ms, call.layout, call.kept(), clock.peak_bytes(call.step, device)
        found.setdefault(call.library, []).append(measured)
    torch._dynamo.reset()
    others = [min(rows)[0] for library, rows in found.items() if library != OURS]
    best = min(others, default=0)
    rows = []
    for library, measured in found.items():
        ms, layout, *_ = min(measured)
        kept, peak = (min(column) for column in list(zip(*measured, strict=True))[2:])
        rows.append(
            Row(library, layout, ms, ms / best if best else 0, least / ms, kept, peak)
        )
    return rows


class _Call(NamedTuple):
    library: str
    layout: str
    step: Callable[[], None]
    kept: Callable[[], int]


def _call(setting, peer, image, layout, device) -> _Call:
    """A library in a setting and a memory format: an inference or a training step."""
    memory_format = LAYOUTS[layout]
    module = copy.deepcopy(peer.module).train(setting.mode == "training")
    module.to(memory_format=memory_format)
    x = image.contiguous(memory_format=memory_format)
    run = torch.compile(module) if setting.execution == "compiled" else module
    half = torch.autocast(device, torch.bfloat16, enabled=setting.dtype == "bf16")

    def infer():
        with torch.no_grad(), half:
            run(x)

    def forward():
        with half:
            return run(x)

    def train():
        sum(m.float().mean() for m in forward()).backward()
        module.zero_grad()

    if setting.mode == "inference":
        return _Call(peer.library, layout, infer, lambda: 0)
    parameters = list(module.parameters())
    kept = functools.partial(clock.kept_bytes, forward, parameters)
    return _Call(peer.library, layout, train, kept)


def _products(setting, ours, image) -> Callable[[], None]:
    """The matrix products of the setting and nothing else: its floor.

    In training there are three for each of inference: the output, the gradient of
    the input and that of the weight.
    """
    with torch.autocast(
        image.device.type, torch.bfloat16, enabled=setting.dtype == "bf16"
    ):
        kind = dict(dtype=precision_of(image).work, device=image.device)
    products = []
    side, before = setting.size // 4, None
    for depth, width in zip(ours.depths, ours.channels, strict=True):
        rows = len(image) * side * side
        shapes = [(rows, width, 4 * width), (rows, 4 * width, width)] * depth
        shapes += [(rows, 4 * before if before else 48, width)]
        before, side = width, side // 2
        products += shapes
    tensors = {
        shape: (torch.rand(shape[0], shape[1], **kind), torch.rand(shape[1:], **kind))
        for shape in set(products)
    }

    def multiply():
        for shape in products:
            rows, weight = tensors[shape]
            out = rows @ weight
            if setting.mode == "training":
                out @ weight.t()
                rows.t() @ out

    return multiply
