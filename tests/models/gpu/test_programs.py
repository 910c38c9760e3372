"""What a training step costs the GPU's host and its memory, counted without a GPU."""

from collections import Counter
from unittest import mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("timm")
pytest.importorskip("triton")

import timm

from convnext_dense.models.fused.gpu import native, reference
from convnext_dense.models.fused.gpu.autograd import apply_stage
from convnext_dense.models.fused.gpu.description import STEM
from convnext_dense.models.fused.gpu.stage import Stage
from convnext_dense.models.fused.gpu.stage_arguments import StageArguments

from ...helpers.arch_stages import autocast, programs

bf16, f32 = torch.bfloat16, torch.float32
BASE, MORE = 3, 9  # blocks of a stage
# Operators that only look at memory which there is.
VIEWS = {
    f"aten::{name}"
    for name in ("as_strided", "detach", "narrow", "slice", "split", "view")
}


@pytest.mark.parametrize(("grn", "most"), [(False, (5, 11)), (True, (8, 15))])
def test_launches_of_a_block(grn, most):
    """``most``: of a block, forwards and back, in any stage.

    Where maps are so large that the hidden rows come in pieces, each piece has launches
    of its own.
    """
    few, many = (
        programs("tiny", autocast(bf16), grn=grn, depths=(blocks,) * 4)
        for blocks in (BASE, MORE)
    )
    for (base, *_), (more, *_) in zip(few, many, strict=True):
        # Beside the blocks': folding, entrance and norm of the output.
        for own, entrance, of_base, of_more in zip(
            most, (5, 12), base[1:], more[1:], strict=True
        ):
            of_base, of_more = len(of_base.launches), len(of_more.launches)
            of_block, rest = divmod(of_more - of_base, MORE - BASE)
            assert rest == 0
            assert of_block <= own
            assert of_base - BASE * of_block <= entrance


class Operators(TorchDispatchMode):
    """Counts PyTorch's operators, without views."""

    def __init__(self):
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name
        if name not in VIEWS:
            self.count[name] += 1
        return function(*args, **(kwargs or {}))


def made(stage: Stage, n: int, side: int):
    """An input of a stage and what it is given."""
    spec = stage.spec
    x = torch.rand(n, spec.before, side, side).to(memory_format=torch.channels_last)
    x.requires_grad_(spec.entrance != STEM)
    parameters = reference.random_parameters(
        spec, f32, torch.device("cpu"), stage.places.strides
    )
    return x, StageArguments.of(parameters, torch.ones(spec.blocks, n))


@pytest.mark.parametrize("grn", [False, True])
def test_no_operator_runs_for_a_block(grn):
    """As many operators for 9 blocks as for 3, once the programs are there."""
    counts = []
    for blocks in (BASE, MORE):
        stages = programs("tiny", autocast(bf16), grn=grn, depths=(blocks,) * 4)
        for (stage, *_), *_ in stages:
            x, arguments = made(stage, 2, 32)
            shape = stage.shape_of(x, True, f32)
            leaves = [t for t in (x, *arguments.parameters) if t.requires_grad]
            with native.skipped_launches():
                for _ in range(2):
                    with Operators() as operators:
                        outs = apply_stage(stage, shape, x, arguments)
                        grads = [torch.empty_like(out) for out in outs]
                        torch.autograd.grad(outs, leaves, grads)
            counts.append(operators.count)
    assert sum(map(len, counts)) > 0
    assert counts[:4] == counts[4:]


class Kept:
    """Counts the bytes that the backward pass of what runs in it needs."""

    def __init__(self, parameters):
        self._without = {p.untyped_storage().data_ptr() for p in parameters}
        self._storages = {}

    def __enter__(self):
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda t: t)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error):
        self._hooks.__exit__(*error)

    def _pack(self, tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._without:
            # The storage is held, so that no other comes to lie where it was.
            self._storages[storage.data_ptr()] = storage
        return tensor

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self._storages.values())


def kept_by_us(n: int, side: int) -> int:
    stages = [plans[0].stage for plans in programs("tiny", autocast(bf16))]
    x, _ = made(stages[0], n, side)
    with native.skipped_launches():
        arguments = [made(stage, n, side)[1] for stage in stages]
        with Kept([p for g in arguments for p in g.parameters]) as kept:
            for stage, own in zip(stages, arguments, strict=True):
                x, _ = apply_stage(stage, stage.shape_of(x, True, f32), x, own)
    return kept.bytes


def layer_norm(x, shape, weight, bias, eps):
    """As autocast has it on a GPU, and not on a CPU: in fp32."""
    with torch.autocast("cpu", enabled=False):
        return torch.layer_norm(x.float(), shape, weight.float(), bias.float(), eps)


def kept_by_timm(n: int, side: int) -> int:
    model = timm.create_model("convnext_tiny", pretrained=False, features_only=True)
    x = torch.rand(n, 3, side, side).to(memory_format=torch.channels_last)
    model = model.to(memory_format=torch.channels_last).train()
    with (
        mock.patch.object(torch.nn.functional, "layer_norm", layer_norm),
        torch.autocast("cpu", bf16),
        Kept(model.parameters()) as kept,
    ):
        maps = model(x)
    assert len(maps) == 4
    return kept.bytes


def test_an_eighth_of_what_timm_keeps():
    """By an image; the difference of two batches is free of what weights take."""
    ours, theirs = (kept(3, 64) - kept(1, 64) for kept in (kept_by_us, kept_by_timm))
    assert 0 < ours <= 0.12 * theirs
