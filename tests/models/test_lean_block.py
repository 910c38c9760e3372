"""The lean block against the reference block: what it computes and what it keeps."""

import copy
import os

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode, addmm_flop

from convnext_dense import ConvNeXt
from convnext_dense.models.block import Block
from convnext_dense.models.fused import block_op, depthwise, lean_block, precision

from ..helpers.comparing import assert_same
from ..helpers.keeping import kept_bytes
from ..helpers.peers import randomised, timm_stage_maps, timm_twin
from ..helpers.running import shell

SHAPES = [(2, 24, 19, 23), (1, 8, 1, 1), (3, 16, 7, 64), (1, 24, 40, 3)]
SMALL = dict(depths=[1, 2, 2, 1], channels=[16, 24, 32, 48])
VARIANTS = {
    "layer scale": dict(layer_scale_init_value=1.0),
    "no layer scale": dict(layer_scale_init_value=0.0),
    "GRN": dict(layer_scale_init_value=0.0, use_grn=True),
    "GRN and layer scale": dict(layer_scale_init_value=1.0, use_grn=True),
}
variants = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)


def block_of(channels, **kwargs):
    """A block with random parameters, none of them neutral or small."""
    torch.manual_seed(0)
    block = Block(channels, **kwargs)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def image_of(shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()


def passes(function, block, x, probe=None):
    """The output and every gradient, of ``x`` first."""
    out = function(x)
    if probe is None:
        generator = torch.Generator().manual_seed(2)
        probe = torch.randn(out.shape, generator=generator).to(out.dtype)
    parameters = [p for p in block.parameters() if p.requires_grad]
    return [out, *torch.autograd.grad(out, [x, *parameters], probe)]


def exact_passes(block, x, probe=None):
    """``passes`` of the reference block, in float64."""
    wide = copy.deepcopy(block).double()
    x = x.detach().double().requires_grad_()
    if probe is None:
        generator = torch.Generator().manual_seed(2)
        probe = torch.randn(x.shape, generator=generator)
    return passes(wide.reference, wide, x, probe.double())


def error(mine, exact):
    """The error's L2 norm as a share of the true one's."""
    return ((mine - exact).norm() / exact.norm().clamp_min(1e-30)).item()


@variants
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("with_cp", [False, True], ids=["keep hidden", "with_cp"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equals_reference(variant, shape, with_cp, dtype):
    block = block_of(shape[1], with_cp=with_cp, **variant).to(dtype)
    x = image_of(shape, dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    expected = exact_passes(block, x)
    for mine, theirs in zip(passes(block, block, x), expected, strict=True):
        assert_same(mine, theirs, tolerance)
    with torch.no_grad():
        assert_same(block(x), expected[0], tolerance)


@variants
@pytest.mark.parametrize("elements", [1, 5000])
def test_equals_reference_in_pieces(variant, elements, monkeypatch):
    """The last piece may have fewer rows; with GRN a piece may be one image."""
    monkeypatch.setattr(lean_block, "_PIECE", elements)
    monkeypatch.setattr(lean_block, "_MIN_ROWS", 7)
    test_equals_reference(variant, (3, 8, 9, 11), False, torch.float32)
    test_equals_reference(variant, (2, 8, 20, 20), True, torch.float32)


@variants
def test_memory_layouts_and_strides(variant):
    block = block_of(8, **variant)
    plain = image_of((2, 8, 12, 20))
    expected = exact_passes(block, plain)
    base = plain.detach()
    wider = torch.zeros(2, 16, 24, 20)
    wider[:, ::2, ::2] = base
    for x in (
        base.contiguous(memory_format=torch.channels_last),
        base.transpose(2, 3).contiguous().transpose(2, 3),
        wider[:, ::2, ::2],
    ):
        mine = passes(block, block, x.detach().requires_grad_())
        assert mine[0].is_contiguous(memory_format=torch.channels_last)
        for a, b in zip(mine, expected, strict=True):
            assert_same(a, b)
    # The output's gradient may have any strides; that of a sum is expanded.
    for probe in (torch.ones(()).expand(2, 8, 12, 20), expected[0].detach().float()):
        for a, b in zip(
            passes(block, block, plain, probe),
            exact_passes(block, plain, probe),
            strict=True,
        ):
            assert_same(a, b)


def stage_maps(model, x):
    maps = []
    for downsample, stage in zip(model.downsample_layers, model.stages, strict=True):
        x = stage(downsample(x))
        maps.append(x)
    return maps


def products_in(dtype, products, monkeypatch):
    """Compute products in half precision or in fp32, whatever this CPU is fast at."""
    slow = {dtype} if products == "fp32" else set()
    monkeypatch.setattr(precision, "_SLOW_ON_CPU", slow)


@pytest.mark.parametrize("use_grn", [False, True], ids=["V1", "V2"])
@pytest.mark.parametrize("products", ["fp32", "half"])
def test_bf16_autocast_is_near_float64(use_grn, products, monkeypatch):
    """One rounding to bf16 errs by at most 2^-8 of a value.

    The roundings are independent, so those of these six blocks add up to about 1.4
    such errors in the maps and 2.2 in the gradients; twice that is allowed.
    """
    products_in(torch.bfloat16, products, monkeypatch)
    kwargs = dict(use_grn=True) if use_grn else dict(layer_scale_init_value=1.0)
    ours = randomised(lambda: ConvNeXt(SMALL, **kwargs))
    exact = copy.deepcopy(ours).double()
    x = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))

    def gradients(model, maps):
        probes = [torch.linspace(-1, 1, m.numel()).view(m.shape) for m in maps]
        sum((m * p.to(m)).sum() for m, p in zip(maps, probes, strict=True)).backward()
        named = model.named_parameters()
        return {name: p.grad for name, p in named if p.grad is not None}

    true_maps = stage_maps(exact, x.double())
    true = gradients(exact, true_maps)
    with torch.autocast("cpu", torch.bfloat16):
        maps = stage_maps(ours, x)
    for mine, expected in zip(maps, true_maps, strict=True):
        assert error(mine, expected) <= 3 * 2**-8
    mine = gradients(ours, maps)
    assert mine.keys() == true.keys()
    for name, gradient in mine.items():
        assert error(gradient, true[name]) <= 5 * 2**-8, name


@variants
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("products", ["fp32", "half"])
def test_half_precision_model(variant, dtype, products, monkeypatch):
    """Without autocast: everything is in half precision, as after ``model.half()``.

    One rounding errs by at most half of ``eps``; each of the block's seven operations
    rounds its output once.
    """
    products_in(dtype, products, monkeypatch)
    block = block_of(16, **variant).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.mul_(0.2).copy_(parameter.to(dtype))
    x = image_of((2, 16, 10, 10), torch.float64).to(dtype).detach().requires_grad_()
    wide = x.detach().double().requires_grad_()
    probe = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    exact = passes(block.reference, block, wide, probe.double())
    block.to(dtype)
    mine = passes(block, block, x, probe)
    assert {t.dtype for t in mine} == {dtype}
    for a, true in zip(mine, exact, strict=True):
        assert error(a, true) <= 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16 autocast"])
@pytest.mark.parametrize("version", ["V1", "V2"])
def test_keeps_half_of_what_timm_keeps(version, autocast):
    kwargs = dict(use_grn=True) if version == "V2" else dict(layer_scale_init_value=1.0)
    ours = randomised(lambda: ConvNeXt("tiny", **kwargs))
    x = torch.rand(1, 3, 256, 256)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        whole = kept_bytes(ours, x)
        twin = timm_twin(ours)
        theirs = kept_bytes(twin, x, lambda x: timm_stage_maps(twin, x))
        for block in (b for stage in ours.stages for b in stage):
            block.with_cp = True
        checkpointed = kept_bytes(ours, x)
    assert whole <= 0.5 * theirs
    assert checkpointed <= 0.25 * theirs


@variants
def test_drop_path_leaves_the_branch_out(variant):
    """Each image keeps or loses its branch by itself; kept branches are scaled up."""
    block = block_of(8, drop_path_rate=0.4, **variant)
    always = copy.deepcopy(block)
    always.drop_path.p = 0.0
    x = image_of((6, 8, 5, 9))
    outcomes = set()
    for seed in range(8):
        torch.manual_seed(seed)
        kept = torch.rand(6) >= 0.4
        torch.manual_seed(seed)
        mine = passes(block, block, x)

        def scaled(x, kept=kept):
            branch = (always.reference(x) - x) / 0.6
            return x + branch * kept[:, None, None, None]

        for a, b in zip(mine, passes(scaled, always, x), strict=True):
            assert_same(a, b)
        assert torch.equal(mine[0][~kept], x[~kept])
        outcomes.update(kept.tolist())
    assert outcomes == {True, False}
    block.eval()
    assert_same(block(x), always.reference(x))


def test_drop_path_may_leave_every_branch_out():
    block = block_of(8, drop_path_rate=0.999, use_grn=True)
    x = image_of((2, 8, 5, 9))
    torch.manual_seed(0)
    out, of_x, *others = passes(block, block, x, probe := torch.randn(2, 8, 5, 9))
    assert torch.equal(out, x)
    assert torch.equal(of_x, probe)
    assert all(torch.equal(g, torch.zeros_like(g)) for g in others)


def test_drop_path_rate_is_kept():
    block = block_of(4, drop_path_rate=0.3)
    x = torch.zeros(4000, 4, 1, 1)
    with torch.no_grad():
        changed = (block(x) != x).flatten(1).any(1)
    assert changed.float().mean().item() == pytest.approx(0.7, abs=0.03)


@variants
def test_frozen_parameters_cost_nothing(variant):
    """The gradient of one parameter alone, or of the input alone, is the same."""
    block = block_of(8, **variant)
    x = image_of((2, 8, 9, 9))
    expected = exact_passes(block, x)
    probe = torch.randn(expected[0].shape, generator=torch.Generator().manual_seed(2))
    parameters = dict(block.named_parameters())
    for kept, grad in zip(parameters.values(), expected[2:], strict=True):
        block.requires_grad_(False)
        kept.requires_grad_()
        (mine,) = torch.autograd.grad(block(x.detach()), [kept], probe)
        assert_same(mine, grad)
    block.requires_grad_(False)
    (mine,) = torch.autograd.grad(block(x), [x], probe)
    assert_same(mine, expected[1])
    out = block(x.detach())
    assert not out.requires_grad


@pytest.mark.parametrize("by_gradient", [False, True])
def test_a_frozen_block_multiplies_no_more_than_it_must(by_gradient, monkeypatch):
    """A frozen block's backward pass computes no gradient of a weight.

    It has two products, and the depthwise convolution twice: once again, and for its
    input's gradient.
    """
    monkeypatch.setattr(depthwise, "_has_avx2_alone", lambda: by_gradient)
    shape, hidden = (1, 16, 12, 12), 4 * 16
    x = image_of(shape)
    product = 2 * x.numel() * hidden
    convolution = 2 * x.numel() * 7 * 7
    needed = 2 * product + 2 * convolution
    assert operations(block_of(16).requires_grad_(False), x) <= needed
    # The counter sees them: each of the three layers' weights costs as much again.
    assert operations(block_of(16), x) >= needed + 2 * product + convolution


def operations(block, x):
    """Multiplications and additions in the backward pass's products and convolutions.

    They do not depend on the library that computes them.
    """
    out = block(x)
    aten = torch.ops.aten
    in_place = {aten.addmm_: addmm_flop, aten.addmm_.default: addmm_flop}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        out.sum().backward()
    return counter.get_total_flops()


def test_second_derivative_is_refused():
    block, x = block_of(8), image_of((1, 8, 5, 5))
    with pytest.raises(NotImplementedError, match=r"Block\.lean = False"):
        torch.autograd.grad(block(x).sum(), x, create_graph=True)


def test_second_derivative_of_the_reference(monkeypatch):
    monkeypatch.setattr(Block, "lean", False)
    block, x = block_of(4).double(), image_of((1, 4, 3, 3), torch.float64)
    assert torch.autograd.gradgradcheck(block, (x,))


@variants
def test_gradcheck(variant):
    block, x = block_of(4, **variant).double(), image_of((2, 4, 3, 4), torch.float64)
    assert torch.autograd.gradcheck(block, (x,))


@pytest.mark.parametrize(
    "change",
    [
        lambda b, seen: b.dwconv.register_forward_hook(lambda *a: seen.append(1)),
        lambda b, seen: b.norm.register_forward_pre_hook(lambda *a: seen.append(1)),
        lambda b, seen: b.pwconv1.register_full_backward_hook(
            lambda *a: seen.append(1)
        ),
        lambda b, seen: setattr(b, "pwconv2", Recorder(b.pwconv2, seen)),
        lambda b, seen: setattr(b, "drop_path", Recorder(nn.Identity(), seen)),
    ],
    ids=["hook", "pre-hook", "backward hook", "adapter", "other drop path"],
)
def test_changed_submodules_are_called(change):
    block, seen = block_of(8), []
    change(block, seen)
    out = block(image_of((1, 8, 5, 5)))
    out.sum().backward()
    assert seen


class Recorder(nn.Module):
    def __init__(self, inner, seen):
        super().__init__()
        self.inner, self.seen, self.p = inner, seen, 0.0

    def forward(self, x):
        self.seen.append(1)
        return self.inner(x)


def test_functional_transforms_take_the_reference():
    block = block_of(4)
    x = image_of((3, 1, 4, 5, 5)).detach()
    parameters = {n: p.detach() for n, p in block.named_parameters()}

    def loss(parameters, image):
        return torch.func.functional_call(block, parameters, (image,)).sum()

    of_each = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    block.zero_grad()
    block(x.flatten(0, 1)).sum().backward()
    for name, parameter in block.named_parameters():
        assert_same(of_each[name].sum(0), parameter.grad)


def test_an_older_pytorch_takes_the_reference():
    code = (
        "import sys, torch; new = torch.compiler.is_exporting\n"
        "del torch.compiler.is_exporting\n"
        "from convnext_dense import ConvNeXt\n"
        "torch.compiler.is_exporting = new  # PyTorch's own code needs it\n"
        "assert 'convnext_dense.models.fused.block_op' not in sys.modules\n"
        "model = ConvNeXt(dict(depths=[1] * 4, channels=[8] * 4), with_cp=True)\n"
        "sum(m.sum() for m in model(torch.rand(1, 3, 64, 64))).backward()\n"
    )
    done = shell("-c", code)
    assert done.returncode == 0, done.stderr


def test_without_triton():
    """Everything works with a PyTorch that came without Triton."""
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from convnext_dense import ConvNeXt\n"
        "model = ConvNeXt(dict(depths=[1] * 4, channels=[8] * 4))\n"
        "sum(m.sum() for m in model(torch.rand(1, 3, 64, 64))).backward()\n"
    )
    done = shell("-c", code)
    assert done.returncode == 0, done.stderr


def small_model(**kwargs):
    """A model with one block a stage: each block takes time to compile."""
    arch = dict(depths=[1, 1, 1, 1], channels=[16, 24, 32, 48])
    return randomised(lambda: ConvNeXt(arch, **kwargs))


def loss_and_gradients(model, function, x):
    model.zero_grad()
    loss = sum((m.float() ** 2).mean() for m in function(x))
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters())]


@pytest.mark.parametrize(
    "kwargs",
    [dict(layer_scale_init_value=1.0), dict(use_grn=True, with_cp=True)],
    ids=["V1", "V2 with_cp"],
)
def test_compiles_into_one_graph(kwargs):
    """``backend="aot_eager"`` runs the compiler's graph without a C++ compiler."""
    model = small_model(**kwargs)
    x = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for mine, theirs in zip(
        loss_and_gradients(model, compiled, x),
        loss_and_gradients(model, model, x),
        strict=True,
    ):
        assert_same(mine, theirs)
    with torch.no_grad():
        for mine, theirs in zip(compiled(x), model(x), strict=True):
            assert_same(mine, theirs)


def test_compiled_drop_path():
    model = small_model(layer_scale_init_value=1.0, drop_path_rate=0.5)
    x = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    losses = set()
    for seed in range(3):
        torch.manual_seed(seed)
        mine = loss_and_gradients(model, compiled, x)
        torch.manual_seed(seed)
        for a, b in zip(mine, loss_and_gradients(model, model, x), strict=True):
            assert_same(a, b)
        losses.add(round(mine[0].item(), 5))
    assert len(losses) == 3  # a new draw every time


def test_operators_keep_their_promises():
    """PyTorch's own check: schema, fake tensors, autograd, tracing."""
    block = block_of(8, use_grn=True)
    x = torch.randn(2, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    block.gamma = nn.Parameter(torch.rand(8))
    names = ("dwconv", "norm", "pwconv1", "pwconv2")
    weights = [getattr(getattr(block, n), k) for n in names for k in ("weight", "bias")]
    weights += [block.gamma, block.grn.gamma, block.grn.beta]
    checked = "test_schema", "test_autograd_registration", "test_faketensor"
    for mask, checks in (
        (None, (*checked, "test_aot_dispatch_dynamic")),
        (torch.tensor([True, False]), checked),  # its hidden rows are partly unset
    ):
        arguments = (x.clone().requires_grad_(), mask, 1e-6, 1.0, *[torch.float32] * 2)
        arguments += (*weights, 2)  # the dilation
        torch.library.opcheck(block_op._operator, arguments, test_utils=checks)


def test_two_processes_have_the_gradients_of_one(tmp_path):
    model = small_model(layer_scale_init_value=1.0)
    x = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = loss_and_gradients(model, model, x)[1:]
    torch.save((model.state_dict(), x), tmp_path / "start.pth")
    torch.multiprocessing.spawn(_process, (str(tmp_path),), nprocs=2)
    for mine, theirs in zip(torch.load(tmp_path / "0.pth"), expected, strict=True):
        assert_same(mine, theirs)


def _process(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    state, x = torch.load(os.path.join(folder, "start.pth"))
    model = small_model(layer_scale_init_value=1.0)
    model.load_state_dict(state)
    parallel = nn.parallel.DistributedDataParallel(model)
    loss_and_gradients(parallel, parallel, x[2 * rank : 2 * rank + 2])
    torch.save([p.grad for p in model.parameters()], f"{folder}/{rank}.pth")
    torch.distributed.destroy_process_group()


def test_reference_block():
    """The reference block against PyTorch's functions, in float64."""
    block = block_of(8).double()
    x = image_of((2, 8, 6, 7), torch.float64)
    y = F.conv2d(x, block.dwconv.weight, block.dwconv.bias, padding=3, groups=8)
    y = (y - y.mean(1, keepdim=True)) / (y.var(1, False, True) + 1e-6).sqrt()
    y = y * block.norm.weight[:, None, None] + block.norm.bias[:, None, None]
    y = F.gelu(F.conv2d(y, block.pwconv1.weight[..., None, None], block.pwconv1.bias))
    y = F.conv2d(y, block.pwconv2.weight[..., None, None], block.pwconv2.bias)
    assert_same(block.reference(x), x + block.gamma[:, None, None] * y, 1e-12)
