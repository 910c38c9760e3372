"""The kernels on a real GPU, every way: ``make test-gpu``. Skipped without a GPU."""

import contextlib
import copy

import pytest
import torch
from torch import nn

from convnext_dense import ConvNeXt
from convnext_dense.models.archs import ARCHS
from convnext_dense.models.block import Block
from convnext_dense.models.fused.gpu import dispatch, ways
from convnext_dense.models.fused.gpu.graphs import graphs_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]

bf16, f16, f32 = torch.bfloat16, torch.float16, torch.float32
SMALL = dict(depths=[1, 2, 1, 1], channels=[32, 64, 96, 128])
V1 = dict(layer_scale_init_value=1.0)
V2 = dict(use_grn=True)
BOTH = dict(use_grn=True, layer_scale_init_value=1.0)


@pytest.fixture
def way(request, monkeypatch):
    monkeypatch.setenv(ways.VARIABLE, request.param)
    return request.param


every_way = pytest.mark.parametrize(
    "way", [ways.TENSOR_CORES, ways.TRITON], indirect=True
)


def model_of(arch=SMALL, **kwargs):
    torch.manual_seed(0)
    model = ConvNeXt(arch, **kwargs)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            if parameter.ndim == 1:
                parameter.copy_(0.7 + 0.2 * noise)
            else:
                fan = parameter[0].numel()
                parameter.copy_(noise / fan**0.5)
    return model.cuda()


def image_of(n=2, h=70, w=101, **kwargs):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, h, w, generator=generator).cuda()


def passes(model, x, amp=None, lean=True, scale=1.0):
    """The maps, and the gradients of all parameters that require one."""
    with lean_set(lean):
        with torch.autocast("cuda", amp or bf16, enabled=amp is not None):
            maps = model(x)
        generator = torch.Generator().manual_seed(2)
        probes = [
            torch.randn(m.shape, generator=generator).to(m.device, m.dtype)
            for m in maps
        ]
        leaves = [p for p in model.parameters() if p.requires_grad]
        leaves += [x] if x.requires_grad else []
        loss = sum((m * p * scale).sum() for m, p in zip(maps, probes, strict=True))
        return [*maps, *torch.autograd.grad(loss, leaves)]


@contextlib.contextmanager
def lean_set(lean):
    before = Block.lean
    Block.lean = lean
    try:
        yield
    finally:
        Block.lean = before


def exactly(model, x):
    """The same in float64, by PyTorch's modules."""
    wide = x.detach().double().requires_grad_(x.requires_grad)
    return passes(copy.deepcopy(model).double(), wide, lean=False)


def error(mine, true):
    return ((mine.double() - true).norm() / true.norm().clamp_min(1e-12)).item()


@every_way
@pytest.mark.parametrize("kwargs", [V1, V2, BOTH], ids=["V1", "V2", "V2 scaled"])
@pytest.mark.parametrize("amp", [bf16, f16], ids=str)
def test_autocast(way, kwargs, amp):
    model, x = model_of(**kwargs), image_of()
    tolerance = 0.05 if amp == bf16 else 0.01
    for mine, true in zip(passes(model, x, amp), exactly(model, x), strict=True):
        assert error(mine, true) < tolerance


@every_way
@pytest.mark.parametrize("kwargs", [V1, V2], ids=["V1", "V2"])
@pytest.mark.parametrize("dtype", [bf16, f16], ids=str)
def test_cast_modules(way, kwargs, dtype):
    model, x = model_of(**kwargs).to(dtype), image_of().to(dtype)
    true = exactly(model, x)
    plain = passes(model, x, lean=False)
    for mine, theirs, exact in zip(passes(model, x), plain, true, strict=True):
        assert mine.dtype == theirs.dtype == dtype
        assert error(mine, exact) < max(1.3 * error(theirs, exact), 0.01)


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("kwargs", [V1, V2], ids=["V1", "V2"])
def test_fp32(kwargs, tf32, monkeypatch):
    monkeypatch.setenv(ways.VARIABLE, ways.TRITON)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", tf32)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32)
    model, x = model_of(**kwargs), image_of()
    for mine, true in zip(passes(model, x), exactly(model, x), strict=True):
        assert error(mine, true) < (2e-2 if tf32 else 1e-4)


@every_way
@pytest.mark.parametrize("size", [(1, 32, 32), (1, 33, 517), (3, 131, 64), (5, 64, 95)])
def test_sizes(way, size):
    model, x = model_of(**V1), image_of(*size)
    for mine, true in zip(passes(model, x, bf16), exactly(model, x), strict=True):
        assert mine.shape == true.shape
        assert error(mine, true) < 0.05


@pytest.mark.parametrize("arch", ARCHS)
def test_every_arch(arch, monkeypatch):
    """At most two blocks per stage: all blocks of a stage have the same kernels."""
    monkeypatch.setenv(ways.VARIABLE, ways.TENSOR_CORES)
    small = dict(depths=[2, 1, 1, 1], channels=list(ARCHS[arch].channels))
    model, x = model_of(small, **V1), image_of(1, 65, 96)
    for mine, true in zip(passes(model, x, bf16), exactly(model, x), strict=True):
        assert error(mine, true) < 0.05


@every_way
@pytest.mark.parametrize("kwargs", [V1, V2], ids=["V1", "V2"])
def test_drop_path(way, kwargs, monkeypatch):
    model, x = model_of(drop_path_rate=0.5, **kwargs), image_of(6)
    drawn = []
    draw = dispatch.draw

    def seen(*args):
        drawn.append(draw(*args))
        return drawn[-1]

    monkeypatch.setattr(dispatch, "draw", seen)
    mine = passes(model, x, bf16)
    factors = iter([f for stage in drawn for f in stage])
    rates = [b.drop_path.p for s in model.stages for b in s]
    exact = copy.deepcopy(model).double()
    # A stage without drop path draws no factors.
    counts = [len(s) for s in model.stages]
    stages = [s for s in exact.stages if any(b.drop_path.p for b in s)]
    assert len(drawn) == len(stages)
    assert sum(counts) == len(rates)
    for stage in stages:
        for block in stage:
            block.drop_path = FixedDropPath(next(factors))
    with lean_set(False):
        true = passes(exact, x.double(), lean=False)
    for a, b in zip(mine, true, strict=True):
        assert error(a, b) < 0.05


class FixedDropPath(nn.Module):
    def __init__(self, factors):
        super().__init__()
        self.factors, self.p = factors, 0.5

    def forward(self, x):
        return x * self.factors[:, None, None, None].to(x.dtype)


def test_drop_path_rate_is_kept():
    factors = dispatch.draw((0.0, 0.3), 20000, torch.device("cuda", 0))
    assert torch.equal(factors[0], torch.ones_like(factors[0]))
    kept = factors[1] != 0
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.02)
    assert factors[1][kept].unique().tolist() == pytest.approx([1 / 0.7])


@every_way
@pytest.mark.parametrize("kwargs", [V1, BOTH], ids=["V1", "V2"])
def test_frozen_subsets(way, kwargs):
    """Each parameter alone has the gradient it has among all."""
    model, x = model_of(**kwargs), image_of()
    every = dict(
        zip(dict(model.named_parameters()), passes(model, x, bf16)[4:], strict=True)
    )
    for name in (
        *("downsample_layers.0.0.weight", "downsample_layers.2.0.weight"),
        *("stages.1.0.dwconv.weight", "stages.1.1.dwconv.bias"),
        *("stages.1.1.norm.weight", "stages.1.1.norm.bias"),
        *("stages.1.1.pwconv1.weight", "stages.1.1.pwconv1.bias"),
        *("stages.1.1.pwconv2.weight", "stages.1.1.pwconv2.bias"),
        *("stages.1.1.gamma", "norm1.weight"),
        *(("stages.1.1.grn.gamma", "stages.1.1.grn.beta") if kwargs is BOTH else ()),
    ):
        model.requires_grad_(False)
        dict(model.named_parameters())[name].requires_grad_()
        (mine,) = passes(model, x, bf16)[4:]
        assert error(mine, every[name].double()) < 0.03, name


@every_way
def test_gradient_of_the_image(way):
    model, x = model_of(**V1), image_of().requires_grad_()
    mine, true = passes(model, x, bf16), exactly(model, x)
    assert error(mine[-1], true[-1]) < 0.05
    model.requires_grad_(False)
    assert error(passes(model, x, bf16)[-1], true[-1]) < 0.05


@every_way
def test_the_same_bits_twice(way):
    model, x = model_of(**V2), image_of(4)
    for mine, again in zip(passes(model, x, bf16), passes(model, x, bf16), strict=True):
        assert torch.equal(mine, again)


@every_way
def test_channels_last_weights_and_image(way):
    model = model_of(**V1).to(memory_format=torch.channels_last)
    x = image_of().contiguous(memory_format=torch.channels_last)
    for mine, true in zip(passes(model, x, bf16), exactly(model, x), strict=True):
        assert error(mine, true) < 0.05
    sum(m.float().sum() for m in model(x)).backward()
    for parameter in model.parameters():
        assert parameter.grad.stride() == parameter.stride() or parameter.ndim == 4


@every_way
def test_in_a_cuda_graph_of_the_user(way):
    model, x = model_of(drop_path_rate=0.2, **V1), image_of()
    model.eval()
    expected = passes(model, x, bf16)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            passes(model, x, bf16)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = passes_without_host(model, x)
    graph.replay()
    torch.cuda.synchronize()
    for mine, true in zip(captured, expected[:4], strict=True):
        assert torch.equal(mine, true)


def passes_without_host(model, x):
    with torch.autocast("cuda", bf16):
        return model(x)


@every_way
def test_on_another_stream(way):
    model, x = model_of(**V1), image_of()
    expected = passes(model, x, bf16)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        mine = passes(model, x, bf16)
    torch.cuda.synchronize()
    for a, b in zip(mine, expected, strict=True):
        assert torch.equal(a, b)


@every_way
@pytest.mark.parametrize("kwargs", [V1, V2], ids=["V1", "V2"])
def test_compiled(way, kwargs):
    model, x = model_of(**kwargs), image_of()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    mine = passes_of(compiled, model, x)
    for a, b, true in zip(mine, passes(model, x, bf16), exactly(model, x), strict=True):
        assert error(a, true) < max(1.2 * error(b, true), 1e-3)


def passes_of(compiled, model, x):
    with torch.autocast("cuda", bf16):
        maps = compiled(x)
    generator = torch.Generator().manual_seed(2)
    probes = [torch.randn(m.shape, generator=generator).to(m) for m in maps]
    loss = sum((m * p).sum() for m, p in zip(maps, probes, strict=True))
    return [*maps, *torch.autograd.grad(loss, list(model.parameters()))]


def test_second_derivative_is_refused():
    model, x = model_of(**V1), image_of()
    with pytest.raises(NotImplementedError, match=r"Block\.lean = False"):
        torch.autograd.grad(
            model(x)[0].sum(), list(model.stages[0].parameters()), create_graph=True
        )


def test_hooks_and_adapters_are_called():
    model, x = model_of(**V1), image_of()
    seen = []
    model.stages[1][0].pwconv1.register_forward_hook(lambda *a: seen.append(1))
    passes(model, x, bf16)
    assert len(seen) == 1


def test_a_block_alone():
    torch.manual_seed(0)
    block = Block(96, layer_scale_init_value=1.0).cuda()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 96, 33, 47, device="cuda", requires_grad=True)
    exact = copy.deepcopy(block).double()
    wide = x.detach().double().requires_grad_()
    true = exact.reference(wide)
    true = [true, *torch.autograd.grad(true.sum(), [wide, *exact.parameters()])]
    with torch.autocast("cuda", bf16):
        out = block(x)
        assert out.dtype == block.reference(x).dtype
    mine = [out, *torch.autograd.grad(out.sum(), [x, *block.parameters()])]
    for a, b in zip(mine, true, strict=True):
        assert error(a, b) < 0.05


@pytest.mark.parametrize("kwargs", [V1, V2], ids=["V1", "V2"])
def test_errors_are_timms_or_smaller(kwargs):
    """On each map and group of gradients, under the same autocast."""
    from ...helpers.peers import timm_name, timm_stage_maps, timm_twin

    ours = model_of(dict(depths=[3, 3, 9, 3], channels=[96, 192, 384, 768]), **kwargs)
    twin = timm_twin(ours)
    exact = copy.deepcopy(twin).double()
    totals = {}
    for seed in range(3):
        torch.manual_seed(seed)
        x = torch.randn(2, 3, 128, 160).cuda()
        true = timm_stage_maps(exact, x.double())
        probes = [torch.randn_like(m) for m in true]

        def gradients(model, maps, probes=probes):
            model.zero_grad()
            sum((m * p).sum() for m, p in zip(maps, probes, strict=True)).backward()
            named = model.named_parameters()
            return {timm_name(n): p.grad for n, p in named if p.grad is not None}

        truth = gradients(exact, true)
        with torch.autocast("cuda", bf16):
            mine, y = [], x
            for i in range(4):
                y, _ = ours._run_stage(i, y)
                mine.append(y)
            theirs = timm_stage_maps(twin, x)
        for i in range(4):
            add(totals, f"map {i}", mine[i], theirs[i], true[i])
        mine, theirs = gradients(ours, mine), gradients(twin, theirs)
        for name in truth:
            group = name if name.startswith("stem") else _group(name)
            add(totals, group, mine[name], theirs[name], truth[name])
    ratios = {name: a / b for name, (a, b) in totals.items()}
    print({name: round(ratio, 3) for name, ratio in ratios.items()})
    assert max(ratios.values()) <= 1.1, ratios


def _group(name):
    """The name without the block's index: one group for all blocks of a stage."""
    parts = name.split(".")
    return ".".join(p for i, p in enumerate(parts) if i != 3)


def add(totals, name, mine, theirs, true):
    a, b = totals.get(name, (0.0, 0.0))
    totals[name] = a + error(mine, true), b + error(theirs, true)


@pytest.mark.parametrize("kwargs", [V1, V2], ids=["V1", "V2"])
def test_graphs_equal_runs_without_graphs(kwargs):
    model, graphed = model_of(**kwargs), model_of(cuda_graphs=True, **kwargs)
    images = [image_of(), 2 * image_of(), image_of(3, 64, 64)]
    for step in range(8):
        x = images[step % 3 if step > 4 else step % 2]
        mine, true = passes(graphed, x, bf16), exactly(model, x)
        for a, b, exact in zip(mine, passes(model, x, bf16), true, strict=True):
            assert error(a, exact) < max(1.2 * error(b, exact), 1e-3), step
    assert graphs_of(graphed, x.device).bytes > 0


def test_graphs_never_return_another_steps_numbers():
    """With kept maps, accumulated gradients, two forward passes before the first
    backward pass, and moved weights."""
    model, graphed = model_of(**V1), model_of(cuda_graphs=True, **V1)
    x, y = image_of(), 3 * image_of()
    for _ in range(4):
        passes(graphed, x, bf16)
    results = []
    for net in (model, graphed):
        net.zero_grad()
        with torch.autocast("cuda", bf16):
            first, second = net(x), net(y)
        sum(m.square().mean() for m in second).backward()
        sum(m.square().mean() for m in first).backward()
        with torch.autocast("cuda", bf16):
            sum(m.square().mean() for m in net(y)).backward()
        results.append([*first, *second, *(p.grad for p in net.parameters())])
    for mine, true in zip(*reversed(results), strict=True):
        assert error(mine, true.double()) < 0.05  # another step's have an error of 1
    for net in (model, graphed):
        for p in net.parameters():
            p.data = p.data.clone() * 1.1
    for mine, true in zip(
        passes(graphed, x, bf16), passes(model, x, bf16), strict=True
    ):
        assert error(mine, true.double()) < 0.05


def test_graphs_of_inference():
    model, x = model_of(**V1).eval(), image_of()
    graphed = copy.deepcopy(model).optimize_for_inference()
    with torch.no_grad(), torch.autocast("cuda", bf16):
        for _ in range(5):
            for mine, true in zip(graphed(x), model(x), strict=True):
                assert error(mine, true.double()) < 0.02
