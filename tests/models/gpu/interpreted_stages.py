"""Whole stages against PyTorch's modules in float64, run with Triton's interpreter by
test_stages.py.

The interpreter cannot multiply bf16, so 16-bit types are fp16 in these tests.
"""

import copy
import os

import pytest
import torch
from torch import nn

from convnext_dense.models.block import Block
from convnext_dense.models.fused.gpu.autograd import apply_stage
from convnext_dense.models.fused.gpu.description import (
    DOWNSAMPLE,
    NONE,
    STEM,
    StageSpec,
    Types,
)
from convnext_dense.models.fused.gpu.forward import pieces
from convnext_dense.models.fused.gpu.plan import CUBLAS, FUSED, PRODUCTS, TRITON, Plan
from convnext_dense.models.fused.gpu.stage import Stage
from convnext_dense.models.fused.gpu.stage_arguments import StageArguments
from convnext_dense.models.layer_norm import LayerNorm2d

EVERY_KERNEL = os.environ.get("CONVNEXT_DENSE_EVERY_KERNEL") == "1"
f16, f32 = torch.float16, torch.float32
TOLERANCE = {f32: 2e-5, f16: 6e-3}
SIZE = (2, 3, 5)  # images, height, width: 30 rows, so one tile of 16 rows is not full
# Small tiles: the interpreter is slow, and a map must have several tiles.
TILES = dict(
    mlp=(16, 32, 4, 1),
    rows=(16, 32, 4, 1),
    weights=(16, 32, 4, 1),
    up=(16, 32, 16, 4, 1),
    hidden=(16, 32, 16, 4, 1),
)


@pytest.fixture(autouse=True)
def nothing_is_read_before_it_is_written():
    """Fill new memory with NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(4, dtype=torch.uint8).view(f32).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


class Reference(nn.Module):
    """A stage of PyTorch's modules."""

    def __init__(self, spec: StageSpec):
        super().__init__()
        c, before, eps = spec.channels, spec.before, spec.eps
        if spec.entrance == STEM:
            self.entrance = nn.Sequential(
                nn.Conv2d(before, c, 4, 4), LayerNorm2d(c, eps=eps)
            )
        elif spec.entrance == DOWNSAMPLE:
            self.entrance = nn.Sequential(
                LayerNorm2d(before, eps=eps), nn.Conv2d(before, c, 2, 2)
            )
        else:
            self.entrance = nn.Sequential()
        self.blocks = nn.ModuleList(
            Block(
                c,
                layer_scale_init_value=float(spec.layer_scale),
                use_grn=spec.grn,
                norm_eps=eps,
            )
            for _ in range(spec.blocks)
        )
        self.norm = LayerNorm2d(c, eps=eps) if spec.norm else None
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
        """The parameters in the order of ``StageSpec``."""
        ordered = list(self.entrance.parameters())
        for b in self.blocks:
            layers = [b.dwconv, b.norm, b.pwconv1, b.pwconv2]
            ordered += [p for m in layers for p in (m.weight, m.bias)]
            ordered += [b.gamma] if b.gamma is not None else []
            ordered += [b.grn.gamma, b.grn.beta] if b.grn is not None else []
        return ordered + (list(self.norm.parameters()) if self.norm else [])


def spec_of(
    entrance=NONE, c=32, blocks=2, scale=True, grn=False, norm=True, before=None
):
    before = before or {STEM: 3, DOWNSAMPLE: 16, NONE: c}[entrance]
    return StageSpec(entrance, before, c, blocks, scale, grn, norm, 1e-6)


def error(mine, true):
    true = true.double()
    return ((mine.double() - true).norm() / true.norm().clamp_min(1e-12)).item()


class Case:
    """A stage with an input and parameters, and the same in float64."""

    def __init__(self, spec, types, plan, size=SIZE, drop=False):
        torch.manual_seed(0)
        n, h, w = size
        self.spec, self.types = spec, types
        module = Reference(spec).to(types.parameters)
        x = torch.randn(n, spec.before, h, w)
        x = x.to(memory_format=torch.channels_last)
        # The image keeps its type, a map has the stream's type.
        self.x = x if spec.entrance == STEM else x.to(types.stream)
        self.x.requires_grad_(spec.entrance != STEM)
        self.exact = copy.deepcopy(module).double()
        self.exact_x = self.x.detach().double().requires_grad_()
        self.parameters = module.ordered()
        self.exact_parameters = self.exact.ordered()
        self.drop = None
        if drop:  # each block drops one image
            self.drop = torch.ones(spec.blocks, n) / 0.6
            self.drop[range(spec.blocks), [b % n for b in range(spec.blocks)]] = 0
        strides = ()
        if spec.entrance != NONE:
            strides = self.parameters[spec.entrance_weight].stride()
        self.stage = Stage(spec, types, plan, strides, None)
        self.normed = f32 if spec.norm else None

    def run(self):
        """Run the stage: the stream and the normed map."""
        shape = self.stage.shape_of(self.x, self.drop is not None, self.normed)
        arguments = StageArguments.of(self.parameters, self.drop)
        return apply_stage(self.stage, shape, self.x, arguments)


def check(
    spec,
    types,
    plan,
    size=SIZE,
    drop=False,
    used=(True, True),
    layout=torch.channels_last,
):
    """Check outputs and gradients against float64, and the output without gradients.

    Args:
        spec, types, plan: the stage.
        size: images, height and width of the input.
        drop: whether to pass drop path factors.
        used: whether the loss reads the stream, and the normed map.
        layout: of the incoming gradients.
    """
    case = Case(spec, types, plan, size, drop)
    tolerance = TOLERANCE[types.work]
    loss = exact_loss = 0
    outs = case.run()
    exact_outs = case.exact(case.exact_x, case.drop)
    for mine, exact, use in zip(outs, exact_outs, used, strict=True):
        assert (mine is None) == (exact is None)
        if mine is None:
            continue
        assert mine.shape == exact.shape
        assert error(mine, exact) < tolerance
        if use:
            probe = torch.randn_like(exact, memory_format=layout)
            loss = loss + (mine.double() * probe).sum()
            exact_loss = exact_loss + (exact * probe).sum()
    leaves, exact_leaves = [*case.parameters], [*case.exact_parameters]
    if case.x.requires_grad:
        leaves, exact_leaves = [*leaves, case.x], [*exact_leaves, case.exact_x]
    if spec.norm and not used[1]:  # then the norm's parameters have no gradient
        for tensors in (leaves, exact_leaves):
            del tensors[len(case.parameters) - 2 : len(case.parameters)]
    grads = torch.autograd.grad(loss, leaves)
    exact_grads = torch.autograd.grad(exact_loss, exact_leaves)
    for index, (mine, exact) in enumerate(zip(grads, exact_grads, strict=True)):
        assert mine.shape == exact.shape
        assert error(mine, exact) < 2 * tolerance, index
    with torch.no_grad():
        again = case.run()
    for a, b in zip(again, outs, strict=True):
        assert a is None or error(a, b) < tolerance / 10


AMP = Types(f16, f32, f32)  # under autocast
PURE, FULL = Types(f16, f16, f16), Types(f32, f32, f32)
CASES = {
    "fp32": (spec_of(), FULL, CUBLAS),
    **{f"autocast, {way}": (spec_of(), AMP, way) for way in PRODUCTS},
    "autocast, fused, 48 channels": (spec_of(c=48, blocks=1), AMP, FUSED),
    "autocast, fused, 80 channels": (spec_of(c=80, blocks=1), AMP, FUSED),
    "autocast, fused, 16 channels": (spec_of(c=16, norm=False), AMP, FUSED),
    "half, fused": (spec_of(), PURE, FUSED),
    "half, Triton": (spec_of(scale=False), PURE, TRITON),
    "GRN": (spec_of(scale=False, grn=True), AMP, CUBLAS),
    "GRN and layer scale": (spec_of(grn=True), FULL, CUBLAS),
    "odd channels": (spec_of(c=20), AMP, CUBLAS),
}
# The other cases run only with drop path, unless every kernel is tested.
WITHOUT_DROP = ["autocast, fused, 16 channels", "half, Triton", "GRN"]


def plan_of(way, types, **changes):
    exact = {f32: 0, f16: 1}[types.work]
    return Plan(way, way, "cuda", exact, **TILES)._replace(**changes)


@pytest.mark.parametrize(
    ("name", "drop"),
    [
        *((name, True) for name in CASES),
        *((name, False) for name in (CASES if EVERY_KERNEL else WITHOUT_DROP)),
    ],
)
def test_blocks(name, drop):
    spec, types, way = CASES[name]
    check(spec, types, plan_of(way, types), drop=drop)


# The downsample layer from 16 to 32 channels is a Triton product; those from 8, to 24
# and in fp32 are cuBLAS products.
ENTRANCES = [
    (STEM, 3, 16, AMP),
    (STEM, 3, 32, PURE),
    (STEM, 3, 16, FULL),
    (DOWNSAMPLE, 16, 32, AMP),
    (DOWNSAMPLE, 8, 32, AMP),
    (DOWNSAMPLE, 16, 24, PURE),
    (DOWNSAMPLE, 16, 32, FULL),
]
if EVERY_KERNEL:
    ENTRANCES = [
        (entrance, before, c, types)
        for entrance, before in [
            (STEM, 1),
            (STEM, 3),
            (DOWNSAMPLE, 8),
            (DOWNSAMPLE, 16),
        ]
        for c in (16, 24, 32, 64)
        for types in (AMP, PURE, FULL)
    ]


@pytest.mark.parametrize(("entrance", "before", "c", "types"), ENTRANCES)
def test_entrances(entrance, before, c, types):
    size = (2, 13, 10) if entrance == STEM else (2, 7, 6)  # odd sizes lose a row
    spec = spec_of(entrance, c, blocks=1, before=before)
    check(spec, types, plan_of(CUBLAS, types), size)


@pytest.mark.parametrize("types", [AMP, PURE] if EVERY_KERNEL else [AMP])
@pytest.mark.parametrize(
    ("way", "grn"), [(TRITON, False), (CUBLAS, False), (CUBLAS, True)]
)
def test_hidden_rows_come_in_pieces(way, grn, types):
    spec = spec_of(blocks=1, scale=not grn, grn=grn)
    images = (3, 3, 5)
    piece = 20 * 4 * spec.channels  # 20 of 45 rows
    plan = plan_of(way, types, forward_piece=piece, backward_piece=piece)
    assert len(pieces(Case(spec, types, plan, images).stage.places, 45, 15, piece)) == 3
    check(spec, types, plan, images, drop=True)


@pytest.mark.parametrize("types", [AMP, PURE, FULL])
@pytest.mark.parametrize("used", [(True, False), (False, True)], ids=["out", "normed"])
def test_an_output_may_be_unused(used, types):
    check(spec_of(blocks=1), types, plan_of(CUBLAS, types), used=used)


@pytest.mark.parametrize("types", [AMP, PURE, FULL])
def test_gradients_come_in_any_layout(types):
    layout = torch.contiguous_format
    check(spec_of(c=20, blocks=1), types, plan_of(CUBLAS, types), layout=layout)


FROZEN = {
    "fused": (spec_of(c=16), AMP, FUSED),
    "Triton": (spec_of(c=32), AMP, TRITON),
    "cuBLAS": (spec_of(DOWNSAMPLE, c=16, before=8), PURE, CUBLAS),
    "GRN": (spec_of(STEM, c=16, grn=True), FULL, CUBLAS),
}


@pytest.mark.parametrize("name", FROZEN)
def test_gradients_alone_are_those_among_all(name):
    """A gradient is the same alone as among all: launches that are left out do not
    change it."""
    spec, types, way = FROZEN[name]
    size = {STEM: (2, 8, 12), DOWNSAMPLE: (2, 4, 6), NONE: (2, 2, 3)}[spec.entrance]
    case = Case(spec, types, plan_of(way, types), size, drop=True)
    outs = case.run()
    probes = [torch.randn_like(out) for out in outs]
    leaves = [p for p in [case.x, *case.parameters] if p.requires_grad]
    grads = torch.autograd.grad(outs, leaves, probes, retain_graph=True)
    of_input = grads[0] if case.x.requires_grad else None
    of_parameters = grads[-len(case.parameters) :]

    def gradients_of(indices, of_x):
        for index, parameter in enumerate(case.parameters):
            parameter.requires_grad_(index in indices)
        case.x.requires_grad_(of_x)
        leaves = [case.x] * of_x + [case.parameters[index] for index in indices]
        return torch.autograd.grad(case.run(), leaves, probes)

    first = case.stage.places.of_block(spec.blocks - 1, 0)
    alone = range(len(case.parameters))
    if not EVERY_KERNEL:  # the entrance's, the last block's and the norm's
        alone = [*range(spec.entrance_parameters), *alone[first:]]
    near = TOLERANCE[types.work] / 2
    for index in alone:
        (mine,) = gradients_of([index], False)
        assert error(mine, of_parameters[index]) < near, index
    if of_input is not None:
        (mine,) = gradients_of([], True)
        assert error(mine, of_input) < near
    # With only the last block trained the backward pass ends there.
    last = range(first, len(case.parameters))
    for index, mine in zip(last, gradients_of(last, False), strict=True):
        assert error(mine, of_parameters[index]) < near, index
