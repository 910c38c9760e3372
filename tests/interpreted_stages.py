"""Whole stages by Triton's interpreter, on the CPU, against the written-out modules in
float64; run by test_gpu_stages.py."""

import copy

import pytest
import torch
from torch import nn

from convnext_dense.block import Block, LayerNorm2d
from convnext_dense.fused.gpu.autograd import Given, apply_stage
from convnext_dense.fused.gpu.description import (
    DOWNSAMPLE,
    NONE,
    STEM,
    StageKind,
    Types,
)
from convnext_dense.fused.gpu.plan import CUBLAS, FUSED, TRITON, Plan
from convnext_dense.fused.gpu.stage import Stage

bf16, f16, f32 = torch.bfloat16, torch.float16, torch.float32
TOLERANCE = {f32: 2e-5, f16: 6e-3, bf16: 4e-2}
# small tiles: the interpreter takes its time, and edges must lie inside them
TILES = dict(
    mlp=(16, 16, 4, 1),
    rows=(16, 16, 4, 1),
    weights=(16, 16, 4, 1),
    up=(16, 32, 16, 4, 1),
    hidden=(16, 32, 16, 4, 1),
)


class Reference(nn.Module):
    """A stage, written out."""

    def __init__(self, kind: StageKind):
        super().__init__()
        c, before, eps = kind.channels, kind.before, kind.eps
        if kind.entrance == STEM:
            self.entrance = nn.Sequential(
                nn.Conv2d(before, c, 4, 4), LayerNorm2d(c, eps=eps)
            )
        elif kind.entrance == DOWNSAMPLE:
            self.entrance = nn.Sequential(
                LayerNorm2d(before, eps=eps), nn.Conv2d(before, c, 2, 2)
            )
        else:
            self.entrance = nn.Sequential()
        self.blocks = nn.ModuleList(
            Block(
                c,
                layer_scale_init_value=float(kind.layer_scale),
                use_grn=kind.grn,
                norm_eps=eps,
            )
            for _ in range(kind.blocks)
        )
        self.norm = LayerNorm2d(c, eps=eps) if kind.norm else None
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def forward(self, x, drop):
        x = self.entrance(x)
        for index, block in enumerate(self.blocks):
            branch = block.reference(x) - x
            if drop is not None:
                branch = branch * drop[index][:, None, None, None]
            x = x + branch
        return x, None if self.norm is None else self.norm(x)

    def ordered(self):
        """The parameters in the order of ``StageKind``."""
        ordered = list(self.entrance.parameters())
        for b in self.blocks:
            own = [b.dwconv, b.norm, b.pwconv1, b.pwconv2]
            ordered += [p for m in own for p in (m.weight, m.bias)]
            ordered += [b.gamma] if b.gamma is not None else []
            ordered += [b.grn.gamma, b.grn.beta] if b.grn is not None else []
        return ordered + (list(self.norm.parameters()) if self.norm else [])


def kind_of(
    entrance=NONE, c=32, blocks=2, scale=True, grn=False, norm=True, before=None
):
    before = before or {STEM: 3, DOWNSAMPLE: 16, NONE: c}[entrance]
    return StageKind(entrance, before, c, blocks, scale, grn, norm, 1e-6)


def error(mine, true):
    true = true.double()
    return ((mine.double() - true).norm() / true.norm().clamp_min(1e-12)).item()


def check(kind, types, plan, size, drop=False, wanted=None, seed=0):
    torch.manual_seed(seed)
    module = Reference(kind)
    n, h, w = size
    x = torch.randn(n, kind.before, h, w)
    if kind.entrance == STEM:
        x_types = x.to(memory_format=torch.channels_last)
    else:
        x_types = x.to(types.stream).contiguous(memory_format=torch.channels_last)
    module = module.to(types.parameters)
    exact = copy.deepcopy(module).double()
    true_x = x_types.double().requires_grad_()
    shares = None
    if drop:
        shares = (torch.rand(kind.blocks, n) > 0.4).float() / 0.6
    true = exact(true_x, shares)
    parameters = module.ordered()
    strides = ()
    if kind.entrance != NONE:
        strides = parameters[0 if kind.entrance == STEM else 2].stride()
    stage = Stage(kind, types, plan, strides, None)
    if wanted is not None:
        for p, want in zip(parameters, wanted, strict=True):
            p.requires_grad_(want)
    mine_x = x_types.clone()
    mine_x.requires_grad_(kind.entrance != STEM)
    shape = stage.shape_of(mine_x, drop, f32 if kind.norm else None)
    given = Given.of(parameters, shares)
    outs = apply_stage(stage, shape, mine_x, given)
    tolerance = TOLERANCE[types.work]
    probes = [None if t is None else torch.randn_like(t) for t in true]
    loss = true_loss = 0
    for a, b, probe in zip(outs, true, probes, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.shape == b.shape
            assert error(a, b) < tolerance
            loss = loss + (a.double() * probe).sum()
            true_loss = true_loss + (b * probe).sum()
    leaves = [p for p in parameters if p.requires_grad]
    true_leaves = [
        q for p, q in zip(parameters, exact.ordered(), strict=True) if p.requires_grad
    ]
    if mine_x.requires_grad:
        leaves, true_leaves = [mine_x, *leaves], [true_x, *true_leaves]
    grads = torch.autograd.grad(loss, leaves)
    true_grads = torch.autograd.grad(true_loss, true_leaves)
    for index, (mine, theirs) in enumerate(zip(grads, true_grads, strict=True)):
        assert mine.shape == theirs.shape
        assert error(mine, theirs) < 2 * tolerance, index
    with torch.no_grad():
        again = apply_stage(stage, shape, mine_x, given)
    for a, b in zip(again, outs, strict=True):
        assert a is None or error(a, b) < tolerance / 10


AMP = Types(f16, f32, f32)  # under autocast; fp16, which shows mistakes that bf16 hides
CASES = {
    "fp32": (kind_of(), Types(f32, f32, f32), CUBLAS, CUBLAS),
    "autocast fused": (kind_of(), AMP, FUSED, FUSED),
    "autocast, 48 channels": (kind_of(c=48), AMP, FUSED, FUSED),
    "autocast in Triton": (kind_of(), AMP, TRITON, TRITON),
    "autocast cuBLAS": (kind_of(), AMP, CUBLAS, CUBLAS),
    "half": (kind_of(), Types(f16, f16, f16), FUSED, FUSED),
    "half in Triton": (kind_of(scale=False), Types(f16, f16, f16), TRITON, TRITON),
    "GRN": (kind_of(scale=False, grn=True), AMP, CUBLAS, CUBLAS),
    "GRN and layer scale": (kind_of(grn=True), Types(f32, f32, f32), CUBLAS, CUBLAS),
    "odd channels": (kind_of(c=20), AMP, CUBLAS, CUBLAS),
}


def plan_of(forward, backward, work, **changes):
    exact = {f32: 0, f16: 1}.get(work, 2)
    plan = Plan(forward, backward, "cuda", exact, **TILES)
    return plan._replace(**changes)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("drop", [False, True], ids=["", "drop"])
def test_blocks(name, drop):
    kind, types, forward, backward = CASES[name]
    check(kind, types, plan_of(forward, backward, types.work), (2, 5, 7), drop)


@pytest.mark.parametrize("entrance", [STEM, DOWNSAMPLE])
@pytest.mark.parametrize("types", [AMP, Types(f32, f32, f32), Types(f16, f16, f16)])
def test_entrances(entrance, types):
    size = (2, 13, 22) if entrance == STEM else (2, 7, 10)
    way = CUBLAS if types.work == f32 else FUSED
    check(kind_of(entrance, blocks=1), types, plan_of(way, way, types.work), size)
