"""The Triton kernels without a GPU: interpreted, and compiled for two of them; and how
one way is chosen of several."""

import pytest
import torch

from convnext_dense.block import Block
from convnext_dense.fused import choice, depthwise, gelu

from .conftest import ROOT, shell

triton = pytest.importorskip("triton")


def test_kernels_interpreted():
    done = shell(
        *("-m", "pytest", ROOT / "tests/interpreted_kernels.py"),
        TRITON_INTERPRET="1",
    )
    assert done.returncode == 0, done.stdout


def kernels():
    """Each kernel with the types of its arguments, as for bf16 under autocast."""
    from convnext_dense.fused import triton_depthwise as dw
    from convnext_dense.fused import triton_gelu

    half, full, tile = "*bf16", "*fp32", dict(WIDE=8, CB=64)
    image = dict(C="i32", H="i32", W="i32")
    return {
        "convolution": (
            dw._convolution,
            dict(x=half, weight=half, bias=half, y=half, **image),
            dict(FLIP=False, **tile),
        ),
        "convolution and norm": (
            dw._convolution_norm,
            dict(
                **dict(x=half, weight=half, bias=half, scale=full, shift=full),
                **dict(u=half, y=half, means=full, rstds=full, **image, eps="fp32"),
            ),
            tile,
        ),
        "weight gradient": (
            dw._weight_gradient,
            dict(x=half, grad=half, partial=full, N="i32", splits="i32", **image),
            tile,
        ),
        "gelu": (
            triton_gelu._backward,
            dict(
                **dict(before=half, wide=half, inner=half, partial=full),
                **dict(M="i32", C="i32", splits="i32"),
            ),
            dict(RB=8, CB=128),
        ),
    }


@pytest.mark.parametrize("name", kernels())
def test_kernels_compile(name, tmp_path, monkeypatch):
    """To machine code of a Hopper GPU, without one."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    function, types, constants = kernels()[name]
    signature = {n: types.get(n, "constexpr") for n in function.arg_names}
    source = ASTSource(function, signature, {(n,): v for n, v in constants.items()})
    source.constants = {(function.arg_names.index(n),): v for n, v in constants.items()}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    assert compiled.asm["cubin"]


def gpu(tensor):
    """A stand-in for a tensor on a GPU: its size and type."""
    return torch.empty(tensor, device="meta")


@pytest.fixture
def on_gpu(monkeypatch):
    """Let ``choice`` take meta tensors for a GPU's, with times of our own."""
    monkeypatch.setattr(choice, "_chosen", {})
    monkeypatch.setattr(choice, "_is_gpu", lambda tensor: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    timed = []

    def time(way, arguments):
        timed.append(way.__name__)
        return way(*arguments, ms=True)

    monkeypatch.setattr(choice, "_time", time)
    return timed


def way(name, milliseconds):
    def compute(x, ms=False):
        if milliseconds is None:
            raise RuntimeError("no such kernel")
        return milliseconds if ms else name

    compute.__name__ = name
    return compute


def test_the_fastest_way_is_taken_and_remembered(on_gpu):
    ways = [way("plain", 3.0), way("kernel", 2.0)]
    for size in (100, 100, 97, 128):  # 65 to 128 are one size
        assert choice.fastest("what", ways, gpu(size)) == "kernel"
    assert on_gpu == ["plain", "kernel"]
    assert choice.fastest("what", ways, gpu(129)) == "kernel"
    assert choice.fastest("other", [way("plain", 1.0), ways[1]], gpu(100)) == "plain"
    assert len(on_gpu) == 6


def test_a_way_that_fails_is_not_taken(on_gpu):
    ways = [way("plain", 3.0), way("kernel", None)]
    assert choice.fastest("what", ways, gpu(8)) == "plain"


def test_plain_pytorch_where_runs_must_repeat(on_gpu, monkeypatch):
    ways = [way("plain", 3.0), way("kernel", 2.0)]
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    assert choice.fastest("what", ways, gpu(8)) == "plain"
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert choice.fastest("what", ways, gpu(8)) == "plain"
    assert not on_gpu


def test_plain_pytorch_without_triton():
    """As where PyTorch came without it: nothing imports it, a block still computes."""
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from convnext_dense.fused import depthwise, gelu\n"
        "assert depthwise._kernels() is None and gelu._kernels() == []\n"
        "from convnext_dense.block import Block\n"
        "Block(8)(torch.rand(1, 8, 9, 9)).sum().backward()\n"
    )
    done = shell("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("use_grn", [False, True])
def test_on_a_gpu(dtype, use_grn, monkeypatch):
    """Every way, in the whole block, against float64."""
    torch.manual_seed(0)
    block = Block(96, use_grn=use_grn, layer_scale_init_value=1.0).cuda()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 96, 33, 47, device="cuda", requires_grad=True)
    exact = Block(96, use_grn=use_grn, layer_scale_init_value=1.0).cuda().double()
    exact.load_state_dict(block.state_dict())
    wide = x.detach().double().requires_grad_()
    true = exact.reference(wide)
    true = [true, *torch.autograd.grad(true.sum(), [wide, *exact.parameters()])]
    for last in (False, True):
        monkeypatch.setattr(
            depthwise, "fastest", lambda name, ways, *a, last=last: ways[-last](*a)
        )
        monkeypatch.setattr(gelu, "fastest", depthwise.fastest)
        with torch.autocast("cuda", torch.bfloat16, enabled=dtype != torch.float32):
            out = block(x)
        mine = [out, *torch.autograd.grad(out.sum(), [x, *block.parameters()])]
        for a, b in zip(mine, true, strict=True):
            error = (a.double() - b).norm() / b.norm()
            assert error <= (1e-3 if dtype == torch.float32 else 0.03)
