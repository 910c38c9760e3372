"""What PyTorch and torchvision do with a model works as with timm's: equal numbers.

Tracing, transforms, fake tensors and empty batches.
"""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacrev, jvp, vmap
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import StochasticDepth

from convnext_dense import ConvNeXt
from convnext_dense.models.block import Block
from convnext_dense.models.drop_path import DropPath

from ..helpers.comparing import assert_same
from ..helpers.keeping import kept_bytes
from ..helpers.peers import randomised, timm_stage_maps, timm_twin

SMALL = dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32])
V1, V2 = dict(layer_scale_init_value=1.0), dict(use_grn=True)


def model_of(**kwargs):
    return randomised(lambda: ConvNeXt(SMALL, **kwargs)).eval()


def image_of(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


class TimmMaps(nn.Module):
    """timm's ConvNeXt as a module that returns the maps of its four stages."""

    def __init__(self, twin):
        super().__init__()
        self.twin = twin

    def forward(self, x):
        return timm_stage_maps(self.twin, x)


def extracted(model, x):
    (name,) = (n for n, _ in model.named_modules() if n.endswith("stages.1"))
    return [create_feature_extractor(model, {name: "maps"})(x)["maps"]]


def forward_gradients(model, x):
    with forward_ad.dual_level():
        maps = model(forward_ad.make_dual(x, x.flip(3)))
        return [forward_ad.unpack_dual(m).tangent for m in maps]


def hessian_product(model, x):
    def slope(image):
        return grad(lambda image: model(image)[-1].square().mean())(image)

    return [jvp(slope, (x,), (x.flip(3),))[1]]


def fake_shapes(model, x):
    with FakeTensorMode(allow_non_fake_inputs=True):
        maps = model(torch.empty(x.shape, dtype=x.dtype))
        sum(m.sum() for m in maps).backward()
    return [torch.tensor(m.shape) for m in maps]


def meta_shapes(model, x):
    maps = copy.deepcopy(model).to("meta")(x.to("meta"))
    sum(m.sum() for m in maps).backward()
    return [torch.tensor(m.shape) for m in maps]


def inferred(model, x):
    with torch.inference_mode():
        return model(x)


def pickled(model, x):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)(x)


USES = {
    "torch.fx": lambda model, x: torch.fx.symbolic_trace(model)(x),
    "create_feature_extractor": extracted,
    "torch.jit.trace": lambda model, x: torch.jit.trace(model, x)(x),
    "vmap": lambda model, x: vmap(model)(x[:, None]),
    "vmap of batches": lambda model, x: vmap(model)(x[None]),
    "jvp": lambda model, x: jvp(lambda x: tuple(model(x)), (x,), (x.flip(3),))[1],
    "jacrev": lambda model, x: [jacrev(lambda x: model(x)[-1].mean((0, 2, 3)))(x)],
    "Hessian-vector product": hessian_product,
    "forward_ad": forward_gradients,
    "functional_call": lambda model, x: functional_call(
        model, {n: 2 * p for n, p in model.named_parameters() if "dw" in n}, (x,)
    ),
    "fake tensors": fake_shapes,
    "meta device": meta_shapes,
    "inference_mode": inferred,
    "deepcopy": lambda model, x: copy.deepcopy(model)(x),
    "torch.save": pickled,
}
GRN_MATTERS = "torch.fx", "vmap of batches", "forward_ad"


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
@pytest.mark.parametrize(
    ("use", "version"),
    [
        *(pytest.param(use, V1, id=name) for name, use in USES.items()),
        *(pytest.param(USES[name], V2, id=f"{name}, V2") for name in GRN_MATTERS),
    ],
)
def test_what_works_with_timm_works_here(use, version):
    model = model_of(**version).double()
    twin = TimmMaps(timm_twin(model)).eval()
    for i in range(4):  # timm returns the stages' maps without a norm
        setattr(model, f"norm{i}", nn.Identity())
    x = image_of(2, 3, 32, 64).double()
    for mine, theirs in zip(use(model, x), use(twin, x), strict=True):
        assert_same(mine, theirs, 1e-10)


@pytest.mark.parametrize(
    "kwargs",
    [
        dict(frozen_stages=2, with_cp=True),
        dict(output_stride=8, drop_path_rate=0.5),
        dict(channels_last=False),
    ],
    ids=str,
)
def test_traced_model_has_the_maps_and_gradients(kwargs):
    """In training, a frozen stage has no drop path: also where it is traced."""
    model = model_of(**V1, **kwargs).train()
    traced = torch.fx.symbolic_trace(model)
    model.lean = False
    x = image_of(2, 3, 64, 64)
    outputs = []
    for function in (traced, model):
        torch.manual_seed(0)
        model.zero_grad()
        maps = function(x)
        sum(m.square().sum() for m in maps).backward()
        outputs.append([*maps, *(p.grad for p in model.parameters())])
    for mine, expected in zip(*outputs, strict=True):
        assert (mine is None) == (expected is None)
        if mine is not None:
            assert_same(mine, expected)
    assert all(map(torch.Tensor.is_contiguous, outputs[0][:4])) == (
        not kwargs.get("channels_last", True)
    )


def test_a_traced_model_keeps_the_lean_block_as_a_leaf():
    model, x = model_of(**V1), image_of(1, 3, 64, 64)
    nodes = {"stages.2.0": "inside", "norm3": "last"}
    lean = create_feature_extractor(
        model, nodes, tracer_kwargs=dict(leaf_modules=[Block])
    )
    written_out = create_feature_extractor(model, nodes)
    for name, maps in lean(x).items():
        assert_same(maps, written_out(x)[name])
    assert_same(lean(x)["last"], model(x)[3])
    assert kept_bytes(lean, x) < 0.7 * kept_bytes(written_out, x)


@pytest.mark.parametrize(
    "kwargs",
    [V1, dict(**V2, with_cp=True), dict(**V1, lean=False, channels_last=False)],
    ids=["V1", "V2 with_cp", "written out, contiguous"],
)
def test_gradients_of_each_sample(kwargs):
    """``vmap`` of ``grad`` equals a loop over the samples, in float64."""
    model = model_of(**kwargs).double()
    weights = {name: p.detach() for name, p in model.named_parameters()}
    images = image_of(3, 3, 32, 64).double()

    def loss(weights, image):
        maps = functional_call(model, weights, (image[None],))
        return sum(m.square().mean() for m in maps)

    of_each = vmap(grad(loss), in_dims=(None, 0))(weights, images)
    for i, image in enumerate(images):
        model.zero_grad()
        sum(m.square().mean() for m in model(image[None])).backward()
        for name, parameter in model.named_parameters():
            assert_same(of_each[name][i], parameter.grad, 1e-10)


def test_vmap_draws_drop_path_for_each_call():
    block = Block(8, drop_path_rate=0.5, layer_scale_init_value=1.0)
    x = image_of(1, 8, 6, 6).expand(40, 1, 8, 6, 6)
    dropped = (vmap(block, randomness="different")(x) == x).flatten(1).all(1)
    assert 8 < dropped.sum() < 32  # 20 on average
    dropped = (vmap(block, randomness="same")(x) == x).flatten(1).all(1)
    assert dropped.sum() in (0, 40)


@pytest.mark.parametrize("shape", [(64, 4, 3, 3), (64, 7)])
def test_drop_path_is_torchvisions(shape):
    x = image_of(*shape)
    torch.manual_seed(0)
    mine = DropPath(0.3)(x)
    torch.manual_seed(0)
    assert torch.equal(mine, StochasticDepth(0.3, "row")(x))
    assert torch.equal(DropPath(0.3).eval()(x), x)
    assert repr(DropPath(0.3)) == "DropPath(p=0.3)"


@pytest.mark.parametrize(
    "kwargs",
    [
        dict(**V1, drop_path_rate=0.5),
        dict(**V2, with_cp=True),
        dict(**V1, lean=False),
        dict(**V2, lean=False, drop_path_rate=0.5, with_cp=True),
        dict(**V1, output_stride=8, channels_last=False),
    ],
    ids=str,
)
@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16 autocast"])
def test_a_batch_without_images(kwargs, autocast):
    model = model_of(**kwargs).train()
    x = torch.rand(0, 3, 64, 96).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        maps = model(x)
    for out, info in zip(maps, model.feature_info, strict=True):
        assert out.shape == (0, info.channels, 64 // info.stride, 96 // info.stride)
    sum(m.sum() for m in maps).backward()
    assert x.grad.shape == x.shape
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, torch.zeros_like(parameter)), name
    with torch.no_grad():
        assert [m.shape for m in model.eval()(x)] == [m.shape for m in maps]


@pytest.mark.parametrize("lean", [True, False], ids=["lean", "written out"])
def test_fake_tensors_have_the_shapes_types_and_strides(lean):
    model = model_of(**V1, lean=lean)
    expected = model(image_of(2, 3, 64, 96))
    with FakeTensorMode() as mode:
        fakes = {n: mode.from_tensor(p) for n, p in model.named_parameters()}
        maps = functional_call(model, fakes, (torch.empty(2, 3, 64, 96),))
    for fake, real in zip(maps, expected, strict=True):
        assert (fake.shape, fake.dtype) == (real.shape, real.dtype)
        assert fake.stride() == real.stride()


def test_pickled_drop_path_and_settings():
    model = pickle.loads(pickle.dumps(model_of(**V1, drop_path_rate=0.2, lean=False)))
    assert model.stages[3][0].drop_path.p == pytest.approx(0.2)
    assert model.lean is model.stages[0][0].lean is False
