"""Prints a Markdown table of deformable convolution: time, memory, largest difference.

On a CPU the peer is mmcv's compiled op, from an extension module that exports
``deform_conv_*`` and ``modulated_deform_conv_*`` (an mmcv with compiled ops, or these
files of its ``csrc`` built alone):

    python -m tests.programs.ops_table --compiled /path/of/mmcv/_ext.so

On a GPU it is deformable convolution in PyTorch alone, by ``grid_sample``:

    python -m tests.programs.ops_table --device cuda

Each figure is the stand-in's, with its ratio to the peer's from the same run; below 1
is better. Memory is the peak during the call beyond what was in use before.
"""

import argparse
import importlib.machinery
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

from convnext_dense import ops

SHAPES = ((2, 256, 50, 84), (1, 128, 100, 168))
"""Stages of a ResNet in a detector: images, channels, height, width. 3 x 3 kernels."""


def load(path: str) -> ModuleType:
    """The extension module in a file."""
    name = Path(path).name.split(".")[0]
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader(name, loader)
    )
    loader.exec_module(module)
    return module


class Inputs:
    """Tensors of a 3 x 3 deformable convolution with as many outputs as inputs."""

    def __init__(self, shape: tuple[int, ...], modulated: bool, device: str) -> None:
        n, c, h, w = shape
        generator = torch.Generator().manual_seed(0)

        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=generator).to(device)

        self.modulated = modulated
        self.x, self.weight = normal(*shape), normal(c, c, 3, 3) / (3 * c**0.5)
        self.offset, self.mask = normal(n, 18, h, w), normal(n, 9, h, w).sigmoid()
        self.grad = normal(*shape)


def forward(module, t: Inputs) -> list[Tensor]:
    """The output, computed as mmcv's Python does."""
    output, buffers = torch.empty_like(t.x), [t.x.new_empty(0) for _ in range(3)]
    if t.modulated:
        module.modulated_deform_conv_forward(
            *(t.x, t.weight, buffers[0], buffers[1], t.offset, t.mask),
            *(output, buffers[2], 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, False),
        )
    else:
        module.deform_conv_forward(
            *(t.x, t.weight, t.offset, output, *buffers[:2]),
            *(3, 3, 1, 1, 1, 1, 1, 1, 1, 1, len(t.x)),
        )
    return [output]


def backward(module, t: Inputs) -> list[Tensor]:
    """The gradients of input, offset, weight (and mask)."""
    grads = [torch.zeros_like(v) for v in (t.x, t.offset, t.weight, t.mask)]
    buffers = [t.x.new_empty(0) for _ in range(4)]
    if t.modulated:
        module.modulated_deform_conv_backward(
            *(t.x, t.weight, buffers[0], buffers[1], t.offset, t.mask, buffers[2]),
            *(grads[0], grads[2], buffers[3], grads[1], grads[3], t.grad),
            *(3, 3, 1, 1, 1, 1, 1, 1, 1, 1, False),
        )
        return grads
    geometry = 3, 3, 1, 1, 1, 1, 1, 1, 1, 1
    module.deform_conv_backward_input(
        *(t.x, t.offset, t.grad, grads[0], grads[1], t.weight, buffers[0]),
        *(*geometry, len(t.x)),
    )
    module.deform_conv_backward_parameters(
        *(t.x, t.offset, t.grad, grads[2], buffers[0], buffers[1]),
        *(*geometry, 1, len(t.x)),
    )
    return grads[:3]


def in_pytorch(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None):
    """Deformable convolution by ``grid_sample``, for a 3 x 3 kernel with padding 1."""
    h, w = x.shape[2:]
    rows, columns = (torch.arange(s, device=x.device, dtype=x.dtype) for s in (h, w))
    result = torch.zeros_like(x)
    for k in range(9):
        y = rows[:, None] + k // 3 - 1 + offset[:, 2 * k]
        at = columns + k % 3 - 1 + offset[:, 2 * k + 1]
        grid = torch.stack(((2 * at + 1) / w - 1, (2 * y + 1) / h - 1), -1)
        samples = F.grid_sample(x, grid, align_corners=False)
        if mask is not None:
            samples = samples * mask[:, k, None]
        result = result + F.conv2d(samples, weight[:, :, k // 3, k % 3, None, None])
    return result


def forward_alone(t: Inputs) -> list[Tensor]:
    with torch.no_grad():
        mask = t.mask if t.modulated else None
        return [in_pytorch(t.x, t.offset, t.weight, mask)]


def both_alone(t: Inputs) -> list[Tensor]:
    """The gradients; its time and memory include the forward pass."""
    leaves = [t.x, t.offset, t.weight, *([t.mask] if t.modulated else [])]
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    result = in_pytorch(*leaves, *([] if t.modulated else [None]))
    return list(torch.autograd.grad(result, leaves, t.grad))


def both(module, t: Inputs) -> list[Tensor]:
    forward(module, t)
    return backward(module, t)


def measured(call: Callable[[], list[Tensor]], device: str) -> tuple[float, float]:
    """Seconds and peak MB of a call."""
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
        before = _resident("VmRSS")
    else:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 1e6
    start = time.perf_counter()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    peak = (
        _resident("VmHWM")
        if device == "cpu"
        else torch.cuda.max_memory_allocated() / 1e6
    )
    return seconds, peak - before


def _resident(field: str) -> float:
    """A figure of this process's memory, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1e3
    raise OSError(f"/proc/self/status has no {field}")


def lines(peer: ModuleType | None, device: str, runs: int, shapes=SHAPES):
    """The lines of the table. Without a ``peer``, PyTorch alone is it."""
    yield "| op | shape | pass | time | ratio | memory | ratio | largest difference |"
    yield "|---|---|---|---|---|---|---|---|"
    for modulated in (False, True):
        for shape in shapes:
            t = Inputs(shape, modulated, device)
            if peer is not None:
                calls = [
                    (f.__name__, partial(f, ops, t), partial(f, peer, t))
                    for f in (forward, backward)
                ]
            else:
                calls = [
                    ("forward", partial(forward, ops, t), partial(forward_alone, t)),
                    ("both", partial(both, ops, t), partial(both_alone, t)),
                ]
            for name, ours, theirs in calls:
                pairs = zip(ours(), theirs(), strict=True)
                differences = [
                    float((a - b).abs().max() / b.abs().max()) for a, b in pairs
                ]
                figures = [
                    [measured(call, device) for call in (ours, theirs)]
                    for _ in range(runs)
                ]
                (s, mb), (s2, mb2) = (
                    [statistics.median(column) for column in zip(*side, strict=True)]
                    for side in zip(*figures, strict=True)
                )
                yield (
                    f"| v{1 + modulated} | {'x'.join(map(str, shape))} | {name} "
                    f"| {s * 1e3:.1f} ms | {s / s2:.2f} | {mb:.0f} MB "
                    f"| {mb / max(mb2, 1e-9):.2f} | {max(differences):.1e} |"
                )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compiled", help="the compiled extension module")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args(arguments)
    peer = load(args.compiled) if args.compiled else None
    for line in lines(peer, args.device, args.runs):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
