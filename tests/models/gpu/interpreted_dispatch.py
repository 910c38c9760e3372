"""Stages in users' programs (copies, FSDP, torch.compile, changed modules), run with
Triton's interpreter by test_stages.py."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn

from convnext_dense import ConvNeXt
from convnext_dense.models.block import Block
from convnext_dense.models.fused.gpu import dispatch, ways
from convnext_dense.models.fused.gpu.plan import plans_for

TAKEN = []


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Take the Triton kernels on the CPU, with the convolutions in PyTorch."""

    def choose(spec, types, strides, device, use):
        plan = plans_for(spec.channels, types.work, spec.grn, "cuda")[-1]
        TAKEN.append(spec.entrance)
        return ways.Choice(ways.TRITON, plan, "")

    TAKEN.clear()
    monkeypatch.setenv(ways.VARIABLE, ways.TRITON)
    monkeypatch.setattr(ways, "choose", choose)


def model_of(**kwargs):
    torch.manual_seed(0)
    arch = dict(depths=[1] * 4, channels=[8, 8, 16, 16])
    kwargs = dict(out_indices=(0, 1), layer_scale_init_value=1.0) | kwargs
    model = ConvNeXt(arch, **kwargs)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def image():
    return torch.randn(2, 3, 35, 38, generator=torch.Generator().manual_seed(1))


def gradients(model, x, maps=None):
    model.zero_grad()
    maps = model(x) if maps is None else maps
    sum(m.square().mean() for m in maps).backward()
    return [*maps, *(p.grad for p in model.parameters())]


def written_out(model, x, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Block, "lean", False)
        return gradients(copy.deepcopy(model), x)


@pytest.mark.parametrize(
    "arguments",
    [dict(layer_scale_init_value=0.0), dict(layer_scale_init_value=0.0, use_grn=True)],
)
def test_blocks_without_layer_scale_pass_twice(monkeypatch, arguments):
    """Such a block has no parameter named gamma, not even None."""
    model = model_of(**arguments)
    expected = written_out(model, image(), monkeypatch)
    for _ in range(3):
        actual = gradients(model, image())
        for value, right in zip(actual, expected, strict=True):
            torch.testing.assert_close(value, right, rtol=1e-3, atol=1e-4)
    assert TAKEN


def assert_same(mine, theirs):
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_parameters_that_were_gathered_elsewhere(monkeypatch):
    """FSDP frees and gathers parameters between the forward and the backward pass."""
    model, x = model_of(), image()
    true = written_out(model, x, monkeypatch)
    maps = model(x)
    kept = []
    for parameter in model.parameters():
        storage, values = parameter.untyped_storage(), parameter.detach().clone()
        size = storage.nbytes()
        storage.resize_(0)
        kept.append(
            torch.full((size,), 255, dtype=torch.uint8)
        )  # takes the freed memory
        storage.resize_(size)
        parameter.detach().view(-1).data.copy_(values.view(-1))
    assert_same(gradients(model, x, maps), true)


def test_saved_tensors_that_were_on_the_cpu(monkeypatch):
    """``save_on_cpu(pin_memory=True)`` returns them in another layout."""
    model, x = model_of(), image()

    def pack(tensor):
        copied = torch.empty(tensor.size(), dtype=tensor.dtype)
        return copied.copy_(tensor)

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        maps = model(x)
    assert_same(gradients(model, x, maps), written_out(model, x, monkeypatch))


@pytest.mark.parametrize("way", [ways.TRITON, ways.PLAIN])
def test_compiled_with_channels_last_weights(way, monkeypatch):
    model, x = model_of().to(memory_format=torch.channels_last), image()
    if way == ways.PLAIN:
        plain = ways.Choice(way, None, "")
        monkeypatch.setattr(ways, "choose", lambda *args: plain)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    mine = gradients(model, x, compiled(x))
    assert_same(mine, written_out(model, x, monkeypatch))


def test_a_deleted_model_is_freed():
    model = model_of()
    gradients(model, image())
    block = weakref.ref(model.stages[0][0])
    del model
    gc.collect()
    assert block() is None


def test_copies_and_pickles_have_no_cache():
    model = model_of()
    gradients(model, image())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same(twin(image()), model(image()))


def test_layer_scale_folded_after_a_step():
    model, x = model_of(), image()
    before = model(x)
    with torch.no_grad():
        assert_same(model.optimize_for_inference()(x), before)


def test_batch_without_images():
    (first, _) = model_of()(torch.zeros(0, 3, 32, 32))
    assert first.shape == (0, 8, 8, 8)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.stages.__setitem__(0, Wrapped(m.stages[0])),
        lambda m: m.stages[0].insert(0, nn.Identity()),
        lambda m: setattr(m.stages[0][0].pwconv1, "weight", transposed(m)),
        lambda m: setattr(m.stages[0][0].norm, "eps", 0.5),
        lambda m: dilate(m.stages[0][0].dwconv),
    ],
    ids=["wrapped", "another block", "transposed weight", "another eps", "dilated"],
)
def test_changed_modules_are_called_themselves(change, monkeypatch):
    model, x = model_of(), image()
    change(model)
    assert_same(gradients(model, x), written_out(model, x, monkeypatch))


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def transposed(model):
    weight = model.stages[0][0].pwconv1.weight
    return nn.Parameter(weight.detach().t().contiguous().t())


def dilate(convolution):
    convolution.dilation, convolution.padding = (2, 2), (6, 6)


def test_a_block_alone_and_the_newer_tf32_setting():
    block, x = Block(8, layer_scale_init_value=1.0), torch.randn(2, 8, 5, 6)
    assert_same([block(x)], [block.reference(x)])
    assert TAKEN == ["none"]
    convolution = getattr(torch.backends.cudnn, "conv", None)
    if hasattr(convolution, "fp32_precision"):
        before = convolution.fp32_precision
        convolution.fp32_precision = "ieee"
        try:
            block(x)
        finally:
            convolution.fp32_precision = before


def test_every_image_dropped():
    factors = dispatch.draw((1.0, 0.0), 3, torch.device("cpu"))
    assert factors.tolist() == [[0, 0, 0], [1, 1, 1]]
