"""Launches, PyTorch operators and kept bytes of a training step, without a GPU."""

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
# Operators that only make views.
VIEWS = {
    f"aten::{name}"
    for name in ("as_strided", "detach", "narrow", "slice", "split", "view")
}


@pytest.mark.parametrize(("grn", "most"), [(False, (5, 11)), (True, (8, 15))])
def test_launches_of_a_block(grn, most):
    """A block has at most ``most`` launches, forward and backward, in any stage.

    On larger maps, whose hidden rows are computed in pieces, each piece adds launches.
    """
    few, many = (
        programs("tiny", autocast(bf16), grn=grn, depths=(blocks,) * 4)
        for blocks in (BASE, MORE)
    )
    for (base, *_), (more, *_) in zip(few, many, strict=True):
        # Other launches: folding, entrance and output norm.
        for most_of_block, most_of_rest, of_base, of_more in zip(
            most, (5, 12), base[1:], more[1:], strict=True
        ):
            of_base, of_more = len(of_base.launches), len(of_more.launches)
            of_block, rest = divmod(of_more - of_base, MORE - BASE)
            assert rest == 0
            assert of_block <= most_of_block
            assert of_base - BASE * of_block <= most_of_rest


class Operators(TorchDispatchMode):
    """Counts PyTorch's operators, except views."""

    def __init__(self):
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name
        if name not in VIEWS:
            self.count[name] += 1
        return function(*args, **(kwargs or {}))


def input_of(stage: Stage, n: int, side: int):
    """An input and the arguments of a stage."""
    spec = stage.spec
    x = torch.rand(n, spec.before, side, side).to(memory_format=torch.channels_last)
    x.requires_grad_(spec.entrance != STEM)
    parameters = reference.random_parameters(
        spec, f32, torch.device("cpu"), stage.places.strides
    )
    return x, StageArguments.of(parameters, torch.ones(spec.blocks, n))


@pytest.mark.parametrize("grn", [False, True])
def test_no_operator_runs_for_a_block(grn):
    """9 blocks take as many operators as 3, once the programs are built."""
    counts = []
    for blocks in (BASE, MORE):
        stages = programs("tiny", autocast(bf16), grn=grn, depths=(blocks,) * 4)
        for (stage, *_), *_ in stages:
            x, arguments = input_of(stage, 2, 32)
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
    """Counts the bytes kept for the backward pass of the code that runs in it."""

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
            # The storage is held, so that no other one takes its address.
            self._storages[storage.data_ptr()] = storage
        return tensor

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self._storages.values())


def kept_by_us(n: int, side: int) -> int:
    stages = [plans[0].stage for plans in programs("tiny", autocast(bf16))]
    x, _ = input_of(stages[0], n, side)
    with native.skipped_launches():
        arguments = [input_of(stage, n, side)[1] for stage in stages]
        with Kept([p for g in arguments for p in g.parameters]) as kept:
            for stage, argument in zip(stages, arguments, strict=True):
                x, _ = apply_stage(stage, stage.shape_of(x, True, f32), x, argument)
    return kept.bytes


def layer_norm(x, shape, weight, bias, eps):
    """LayerNorm in fp32, as autocast computes it on a GPU but not on a CPU."""
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
    """For each image: the difference of two batches does not contain the weights."""
    ours, theirs = (kept(3, 64) - kept(1, 64) for kept in (kept_by_us, kept_by_timm))
    assert 0 < ours <= 0.12 * theirs
