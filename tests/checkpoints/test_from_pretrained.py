"""``ConvNeXt.from_pretrained``: the backbone of a checkpoint, from the file alone."""

import pytest
import timm
import torch
import transformers

from convnext_dense import ConvNeXt
from convnext_dense.errors import InputError

TINY = dict(depths=[1, 1, 2, 1], channels=[8, 16, 24, 32])
IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def saved(module, file):
    """Save weights that differ from those at initialisation."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.2)
    torch.save(module.state_dict(), file)
    return module.eval()


def equal_maps(a, b):
    with torch.no_grad():
        return all(map(torch.equal, a(IMAGE), b(IMAGE)))


@pytest.mark.parametrize(
    "arguments",
    [
        dict(arch=TINY),
        dict(arch="atto", use_grn=True),
        dict(arch=TINY, in_channels=5, layer_scale_init_value=0),
        dict(arch=TINY, use_grn=True, layer_scale_init_value=1.0),
        # Without the stages after the last map.
        dict(arch="atto", out_indices=(0, 1, 2)),
    ],
)
def test_the_architecture_is_read_from_the_weights(arguments, tmp_path):
    model = saved(ConvNeXt(**arguments), tmp_path / "a.pth")
    loaded = ConvNeXt.from_pretrained(tmp_path / "a.pth")
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(
        torch.equal(tensor, model.state_dict()[name])
        for name, tensor in loaded.state_dict().items()
    )
    assert loaded.depths == model.depths


def test_it_is_in_evaluation_mode_and_keeps_its_weights(tmp_path):
    model = saved(ConvNeXt(TINY), tmp_path / "a.pth")
    loaded = ConvNeXt.from_pretrained(str(tmp_path / "a.pth"), drop_path_rate=0.5)
    assert not any(module.training for module in loaded.modules())
    assert equal_maps(loaded, model)
    loaded.init_weights()  # as a Runner calls it
    assert equal_maps(loaded, model)


def test_checkpoints_of_other_libraries(tmp_path):
    peer = timm.create_model("convnext_atto", num_classes=7)
    saved(peer, tmp_path / "timm.pth")
    loaded = ConvNeXt.from_pretrained(tmp_path / "timm.pth", out_indices=[3])
    with torch.no_grad():
        theirs = peer.stages(peer.stem(IMAGE))
        ours = loaded.downsample_layers[0](IMAGE)
        for index, stage in enumerate(loaded.stages):
            ours = stage(loaded.downsample_layers[index](ours) if index else ours)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    config = transformers.ConvNextV2Config(
        depths=TINY["depths"], hidden_sizes=TINY["channels"]
    )
    model = transformers.ConvNextV2ForImageClassification(config)
    model.save_pretrained(tmp_path / "hf")
    loaded = ConvNeXt.from_pretrained(tmp_path / "hf")
    assert loaded.stages[0][0].grn is not None
    assert loaded.depths == (1, 1, 2, 1)


def test_arguments_replace_what_was_read(tmp_path):
    saved(ConvNeXt("atto"), tmp_path / "a.pth")
    loaded = ConvNeXt.from_pretrained(
        tmp_path / "a.pth", out_indices=(1, 2), output_stride=16, frozen_stages=1
    )
    assert [info.channels for info in loaded.feature_info] == [80, 160]
    assert len(loaded.stages) == 3


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (dict(arch="tiny"), "set arch='atto' on the backbone"),
        (dict(use_grn=True), "use_grn False in the checkpoint and True in the model"),
        (dict(in_channels=1), "in_channels 3 in the checkpoint and 1 in the model"),
        (dict(arch="tyni"), "unknown arch 'tyni'"),
        (dict(prefix="teacher"), "teacher"),
    ],
)
def test_arguments_that_do_not_fit(arguments, advice, tmp_path):
    saved(ConvNeXt("atto"), tmp_path / "a.pth")
    with pytest.raises(InputError, match=advice):
        ConvNeXt.from_pretrained(tmp_path / "a.pth", **arguments)


def without(weights, *starts):
    return {name: w for name, w in weights.items() if not name.startswith(starts)}


def test_checkpoints_that_hold_no_whole_convnext(tmp_path):
    file = tmp_path / "a.pth"
    weights = ConvNeXt(TINY).state_dict()
    torch.save(without(weights, "stages.3", "downsample_layers.3", "norm3"), file)
    with pytest.raises(InputError, match=r"3 of the 4 stages.*\[1, 1, 2\] blocks"):
        ConvNeXt.from_pretrained(file)
    # The advice works.
    model = ConvNeXt.from_pretrained(file, arch=TINY, out_indices=[0, 1, 2])
    assert torch.equal(model.norm2.weight, weights["norm2.weight"])
    # A shard of a classifier ends anywhere.
    torch.save(without(ConvNeXt("atto").state_dict(), "stages.3", "norm"), file)
    with pytest.raises(InputError, match="it is not whole"):
        ConvNeXt.from_pretrained(file)
    torch.save(without(weights, "stages.2.1.pwconv1"), file)
    with pytest.raises(InputError, match=r"lacks 2 .*stages\.2\.1\.pwconv1"):
        ConvNeXt.from_pretrained(file)
    torch.save(dict(weight=torch.ones(2)), file)
    with pytest.raises(InputError, match="has no ConvNeXt"):
        ConvNeXt.from_pretrained(file)
    torch.save(
        {f"{at}.{n}": w for at in ("student", "teacher") for n, w in weights.items()},
        file,
    )
    with pytest.raises(InputError, match="name one as prefix"):
        ConvNeXt.from_pretrained(file)
    loaded = ConvNeXt.from_pretrained(file, "teacher")
    assert torch.equal(loaded.norm0.weight, weights["norm0.weight"])
    with pytest.raises(InputError, match="no checkpoint at"):
        ConvNeXt.from_pretrained(tmp_path / "b.pth")
