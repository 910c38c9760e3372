"""Images of a wrong type, shape or number type: one message, whose advice works."""

import numpy
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from convnext_dense import ConvNeXt
from convnext_dense.errors import InputError

SMALL = dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8])
FP32, FP64, FP16, BF16 = torch.float32, torch.float64, torch.float16, torch.bfloat16


def small(dtype=FP32, **kwargs):
    return ConvNeXt(SMALL, layer_scale_init_value=1.0, **kwargs).to(dtype)


def images_of(dtype=FP32, shape=(2, 3, 64, 64)):
    return (torch.rand(shape) * 255).to(dtype)


@pytest.mark.parametrize(
    ("images", "says", "follow"),
    [
        (images_of(shape=(3, 64, 64)), r"images\[None\]", lambda x: x[None]),
        (images_of(shape=(64, 64)), r"four dimensions, \(N, C, H, W\)$", None),
        (images_of(shape=(1, 2, 3, 64, 64)), "four dimensions", None),
        (
            images_of(shape=(2, 64, 96, 3)),
            r"3 channels, not 64; if .*permute\(0, 3, 1, 2\)",
            lambda x: x.permute(0, 3, 1, 2),
        ),
        ([images_of(shape=(3, 64, 64))], r"not as list: .*torch\.stack", torch.stack),
        (
            numpy.zeros((1, 3, 64, 64), "float32"),
            "not as ndarray: .*from_numpy",
            torch.from_numpy,
        ),
    ],
    ids=lambda value: None,
)
@pytest.mark.parametrize("lean", [True, False], ids=["lean", "written out"])
def test_wrong_shapes(images, says, follow, lean):
    model = small(lean=lean)
    with pytest.raises(InputError, match=says) as refused:
        model(images)
    assert isinstance(refused.value, ValueError)
    if follow:
        assert len(model(follow(images))) == 4


@pytest.mark.parametrize("channels", [1, 4])
def test_wrong_channels(channels):
    images = images_of(shape=(2, channels, 64, 64))
    with pytest.raises(InputError, match=f"in_channels={channels}"):
        small()(images)
    small(in_channels=channels)(images)


INTEGERS = [torch.uint8, torch.int64, torch.bool]
OTHERS = [(FP32, FP16), (FP32, BF16), (FP16, FP32), (FP64, FP32), (FP32, FP64)]


@pytest.mark.parametrize("lean", [True, False], ids=["lean", "written out"])
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_images_that_are_not_floats(dtype, lean):
    model, images = small(lean=lean), images_of(dtype)
    for autocast in (False, True):
        with (
            torch.autocast("cpu", BF16, enabled=autocast),
            pytest.raises(InputError, match=rf"{dtype}.*\(images.to\(torch.float32\)"),
        ):
            model(images)
    model((images.to(FP32) - 128) / 64)


@pytest.mark.parametrize("lean", [True, False], ids=["lean", "written out"])
@pytest.mark.parametrize(("given", "weights"), OTHERS, ids=str)
def test_images_of_another_number_type_than_the_weights(given, weights, lean):
    model, images = small(weights, lean=lean), images_of(given)
    with pytest.raises(InputError, match=f"images are {given} and") as refused:
        model(images)
    assert f"images.to({weights}) or backbone.to({given})" in str(refused.value)
    model(images.to(weights))
    if FP64 in (given, weights):  # autocast leaves it as it is
        assert "autocast" not in str(refused.value)
        with torch.autocast("cpu", BF16), pytest.raises(InputError, match="images are"):
            model(images)
    else:
        assert "autocast" in str(refused.value)
        if lean or FP16 not in (given, weights):  # a CPU's layer norm is fp32 or bf16
            with torch.autocast("cpu", BF16):
                model(images)
    model.to(given)(images)


def test_no_value_is_read():
    """So no device is waited for: tensors of the meta device have no values."""
    model = small().to("meta")
    with pytest.raises(InputError, match=r"torch\.uint8"):
        model(images_of(torch.uint8).to("meta"))
    with pytest.raises(InputError, match="takes 3 channels, not 1"):
        model(images_of(shape=(1, 1, 64, 64)).to("meta"))


def test_a_replaced_stem_takes_what_it_takes():
    model = small()
    model.downsample_layers[0][0] = nn.Conv2d(5, 8, 4, 4)
    model(images_of(shape=(1, 5, 64, 64)))
    with pytest.raises(InputError, match="takes 5 channels, not 3"):
        model(images_of())

    class FromBytes(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 8, 4, 4)

        def forward(self, x):
            return self.convolution(x.float() / 255)

    model.downsample_layers[0][0] = FromBytes()
    model(images_of(torch.uint8))


def test_a_parametrized_weight_is_computed_once():
    """Spectral norm, for example, changes its state each time."""
    calls = []

    class Counted(nn.Module):
        def forward(self, weight):
            calls.append(1)
            return weight

    model = small()
    stem = model.downsample_layers[0][0]
    parametrize.register_parametrization(stem, "weight", Counted())
    calls.clear()
    model(images_of())
    assert len(calls) == 1
