"""Deformable attention on a real GPU: ``make test-gpu``. Skipped without a GPU."""

import warnings

import pytest
import torch

from convnext_dense.ops import ms_deform_attn_backward, ms_deform_attn_forward
from convnext_dense.ops.deform_attn import operators
from convnext_dense.patches import mmcv_deform_attn

from ...helpers.deform_attn import errors, inputs, truth

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]

f64, f32, bf16, f16 = torch.float64, torch.float32, torch.bfloat16, torch.float16
TOLERANCE = {f64: 1e-12, f32: 5e-6, bf16: 4e-3, f16: 5e-4}
# Of mmcv's module, as a share of the norm: output and gradients. Its products are in
# half precision. They are offsets too, which moves some samples past a cell's centre,
# where the gradient jumps.
MODULE_TOLERANCE = {f32: (1e-5, 1e-3), f16: (2e-3, 0.15), bf16: (8e-3, 0.15)}
LEVELS = [(5, 7), (3, 4), (1, 1)]


@pytest.fixture(autouse=True)
def triton_must_work(monkeypatch):
    """A failure of Triton is no reason to take PyTorch."""

    def fail(text, **_):
        raise AssertionError(text)

    monkeypatch.setattr(operators, "_triton_works", True)
    monkeypatch.setattr(operators, "print_log", fail)


def both(given, into=None):
    *arguments, grad = given
    out = ms_deform_attn_forward(*arguments, im2col_step=64)
    grads = into or [torch.zeros_like(arguments[i]) for i in (0, 3, 4)]
    ms_deform_attn_backward(*arguments, grad, *grads, im2col_step=64)
    return [out, *grads]


@pytest.mark.parametrize("triton", [True, False], ids=["Triton", "PyTorch"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    "sizes",
    [
        (2, LEVELS, 50, 8, 32, 4),
        (3, LEVELS, 7, 2, 20, 3),
        (1, [(1, 1)], 6, 1, 1, 1),
        (1, [(9, 20), (4, 4)], 33, 2, 256, 5),
    ],
    ids=str,
)
def test_against_the_sum_over_all_cells(sizes, dtype, triton, monkeypatch):
    monkeypatch.setattr(operators, "_triton_works", triton)
    given = inputs(*sizes, dtype=dtype, device="cuda")
    mine = both(given)
    assert max(errors(mine, truth(given))) <= TOLERANCE[dtype]


def test_mixed_types_layouts_and_another_stream():
    given = inputs(2, LEVELS, 9, 2, 32, 3, device="cuda")
    turned = given._replace(
        value=given.value.bfloat16().transpose(0, 1).contiguous().transpose(0, 1),
        locations=given.locations.transpose(3, 4).contiguous().transpose(3, 4),
        grad=given.grad.mT.contiguous().mT,
    )
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        mine = both(turned)
        torch.cuda.current_stream().synchronize()
    assert max(errors(mine[:2], truth(turned)[:2])) <= TOLERANCE[bf16]
    assert max(errors(mine[2:], truth(turned)[2:])) <= TOLERANCE[f32]


@pytest.mark.parametrize("triton", [True, False], ids=["Triton", "PyTorch"])
def test_host_waits_for_nothing(triton, monkeypatch):
    monkeypatch.setattr(operators, "_triton_works", triton)
    given = inputs(2, LEVELS, 50, 8, 32, 4, device="cuda")
    both(given)
    torch.cuda.set_sync_debug_mode("error")
    try:
        both(given)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_cuda_graph():
    given = inputs(2, LEVELS, 50, 8, 32, 4, device="cuda")
    both(given)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        mine = both(given)
    given.value.neg_()
    graph.replay()
    assert max(errors(mine, truth(given))) <= TOLERANCE[f32]


def test_deterministic_mode():
    """Thousands of samples of a few cells: atomic additions would differ."""
    given = inputs(2, [(2, 2)], 5000, 8, 32, 4, device="cuda")
    torch.use_deterministic_algorithms(True)
    try:
        first, second = both(given), both(given)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_empty():
    for sizes in ((0, LEVELS, 3, 2, 32, 4), (2, LEVELS, 0, 2, 32, 4)):
        given = inputs(*sizes, device="cuda")
        mine = both(given)
        assert mine[0].shape == given.grad.shape
        assert not any(t.any() for t in mine)


def test_value_of_more_than_2_to_the_31_numbers():
    """The last cells of the last image are sampled."""
    heads, channels, side = 8, 32, 2960
    if torch.cuda.mem_get_info()[0] < 14 << 30:
        pytest.skip("needs 14 GB")
    cells = side * side
    value = torch.zeros(1, cells, heads, channels, dtype=f16, device="cuda")
    assert value.numel() > 2**31
    value[0, -1] = 2
    shapes = torch.tensor([[side, side]], device="cuda")
    starts = torch.zeros(1, dtype=torch.int64, device="cuda")
    locations = torch.full((1, 1, heads, 1, 1, 2), 1 - 0.5 / side, device="cuda")
    weights = torch.ones(1, 1, heads, 1, 1, device="cuda")
    out = ms_deform_attn_forward(value, shapes, starts, locations, weights, 64)
    assert (out - 2).abs().max() < 0.01


@pytest.mark.parametrize("size", [2, 4], ids=["points", "boxes"])
@pytest.mark.parametrize("dtype", MODULE_TOLERANCE, ids=str)
def test_module_of_mmcv(dtype, size, monkeypatch):
    """The module's output and gradients under autocast, with no warning.

    Its float64 values are from mmcv's PyTorch function on the CPU.
    """
    from mmcv.ops import MultiScaleDeformableAttention

    from convnext_dense.ops.deform_attn import kernels, launches

    launched = []
    launch = launches._launch

    def watched(kernel, *arguments):
        launched.append(kernel)
        launch(kernel, *arguments)

    monkeypatch.setattr(launches, "_launch", watched)
    torch.set_float32_matmul_precision("highest")  # the default: no TF32
    torch.manual_seed(0)
    module = MultiScaleDeformableAttention(64, 4, 3, 2, dropout=0.0, batch_first=True)
    torch.nn.init.normal_(module.attention_weights.weight, std=0.1)
    given = inputs(2, [(25, 42), (13, 21), (4, 5)], 50, 4, 16, 2)
    tensors = torch.randn(2, 50, 64), given.value.flatten(2), torch.rand(2, 50, 3, size)

    def train(device, exact):
        module.to(device, exact)
        query, value, reference = (t.to(device, exact) for t in tensors)
        leaves = [query.requires_grad_(), value.requires_grad_(), *module.parameters()]
        out = module(
            query,
            value=value,
            identity=torch.zeros_like(query),
            reference_points=reference,
            spatial_shapes=given.shapes.to(device),
            level_start_index=given.starts.to(device),
        )
        grads = torch.autograd.grad(out.double().square().sum(), leaves)
        return [t.detach().cpu() for t in (out, *grads)]

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        mmcv_deform_attn.install()  # its filter, in this context
        with torch.autocast("cuda", dtype, enabled=dtype != f32):
            mine = train("cuda", f32)
    assert not [w.message for w in heard if "deform_attn" in w.filename]
    assert launched == [kernels.forward, kernels.backward]
    shares = [
        ((a - b).norm() / b.norm()).item()
        for a, b in zip(mine, train("cpu", f64), strict=True)
    ]
    of_output, of_gradients = MODULE_TOLERANCE[dtype]
    assert shares[0] <= of_output, shares
    assert max(shares) <= of_gradients, shares
