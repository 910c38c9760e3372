"""timm's ConvNeXt with the weights of ours."""

import re

import pytest
import torch

TIMM_NAMES = (  # regular expression of our names, timm's name; applied in turn
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d)\.", r"stages.\1.downsample."),
    (r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv(\d)\.", r".mlp.fc\1."),
    (r"\.grn\.gamma$", ".mlp.grn.weight"),
    (r"\.grn\.beta$", ".mlp.grn.bias"),
)


def timm_name(name: str) -> str:
    """timm's name of our parameter ``name``."""
    for pattern, replacement in TIMM_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def randomised(build):
    """Build a model without its slow initialisation, then fill it with noise.

    Weights have the scale of the initialisation. Norms and layer scale are not neutral,
    so that leaving one out changes the maps.
    """
    with torch.device("meta"):
        model = build()
    model = model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = parameter.normal_(generator=generator)
            if parameter.ndim > 1:
                noise.mul_(0.02)
            elif name.endswith(("bias", "beta")):
                noise.mul_(0.1)
            else:
                noise.mul_(0.1).add_(0.7)
        for buffer in model.buffers():  # statistics of batch norms
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return model


def timm_twin(ours, output_stride=32):
    """timm's ConvNeXt without a head, with the weights of ``ours``."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        twin = timm.models.convnext.ConvNeXt(
            depths=ours.depths,
            dims=ours.channels,
            num_classes=0,
            use_grn=ours.stages[0][0].grn is not None,
            ls_init_value=None if ours.stages[0][0].gamma is None else 1.0,
            output_stride=output_stride,
        )
    weights = {
        timm_name(name): parameter
        for name, parameter in ours.state_dict().items()
        if not name.startswith("norm")
    }
    left = twin.load_state_dict(weights, strict=False, assign=True)
    assert not left.unexpected_keys
    assert all(name.startswith("head.") for name in left.missing_keys)
    for name, parameter in twin.named_parameters():
        parameter.requires_grad_(name in weights)
    return twin


def timm_stage_maps(twin, x):
    """The outputs of timm's four stages."""
    maps = [twin.stem(x)]
    for stage in twin.stages:
        maps.append(stage(maps[-1]))
    return maps[1:]
