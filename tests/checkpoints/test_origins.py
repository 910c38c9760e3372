"""Whoever named the tensors, the feature maps are that library's own.

Libraries that are installed build their own models; for the others, the names and
shapes are those of their own code (tests/data/checkpoint_names.json) and timm,
which has a reader for the authors' names, computes what they mean.
"""

import functools
import re

import numpy as np
import pytest
import safetensors.torch
import torch
from mmengine.runner import load_checkpoint
from torch.nn import functional as F

from convnext_dense import ConvNeXt
from convnext_dense.models.archs import ARCHS

from ..helpers.mmengine_state import logged
from ..helpers.peers import randomised, timm_stage_maps
from ..helpers.published import (
    ALL,
    CHANNELS,
    DEPTHS,
    DET,
    PUBLISHED,
    SEG,
    SMALL,
    V1,
    build,
    image,
    published,
)

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")
torchvision = pytest.importorskip("torchvision")


def stage_maps(stages, model, x):
    """The outputs of ``stages`` while ``model`` computes."""
    maps = []
    hooks = [
        stage.register_forward_hook(lambda m, args, out: maps.append(out))
        for stage in stages
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return maps


def of_the_backbone(messages):
    return [m for m in messages if not m.startswith("Loads checkpoint by")]


def ours(arch, source, **kwargs):
    """The backbone with the weights of a file, and the line it logged."""
    kwargs.setdefault("layer_scale_init_value", 0.0 if kwargs.get("use_grn") else 1.0)
    init_cfg = dict(type="Pretrained", checkpoint=str(source))
    model = ConvNeXt(arch, init_cfg=init_cfg, **kwargs).eval()
    with logged() as messages:
        model.init_weights()
    (said,) = messages
    return model, said


def assert_same(mine, theirs, what):
    assert len(mine) == len(theirs) == 4
    largest = max((a - b).abs().max().item() for a, b in zip(mine, theirs, strict=True))
    print(f"largest difference, {what}: {largest:.1e}")
    assert largest <= 1e-5
    assert min(m.std().item() for m in theirs) > 1e-3  # there is something to compare


def timm_maps(weights, x, use_grn=False):
    """What timm makes of weights under the authors' names."""
    model = timm.models.convnext.ConvNeXt(
        depths=DEPTHS,
        dims=CHANNELS,
        num_classes=10,
        use_grn=use_grn,
        ls_init_value=None if use_grn else 1.0,
    ).eval()
    weights = timm.models.convnext.checkpoint_filter_fn(dict(weights), model)
    left = model.load_state_dict(weights, strict=False)
    assert not [name for name in left.missing_keys if not name.startswith("head.")]
    with torch.no_grad():
        return timm_stage_maps(model, x)


def to_authors(name, weights):
    """From published names to the authors', by what the tensors are."""
    renamed = {}
    for key, tensor in weights.items():
        key = key.removeprefix("backbone.").replace("depthwise_conv", "dwconv")
        key = re.sub(r"pointwise_conv(\d)", r"pwconv\1", key)
        if name == "fcmae":
            key = re.sub(r"\.(ln|linear)\.", ".", key)
            if key.endswith(".kernel"):
                tensor = from_minkowski(tensor)
                key = key.replace(".kernel", ".weight")
            elif key.endswith("bias"):
                tensor = tensor.reshape(-1)
        if not key.startswith(("norms.", "norm0", "norm1", "norm2", "norm3")):
            renamed[key] = tensor
    return renamed


def from_minkowski(kernel):
    """Positions count along y first: kernel[x * size + y] is what weighs (y, x)."""
    size = int(len(kernel) ** 0.5)
    out, before = kernel.shape[-1], kernel.shape[1] if kernel.ndim == 3 else 1
    dense = torch.zeros(out, before, size, size)
    for y, x in np.ndindex(size, size):
        position = kernel[x * size + y]
        dense[:, :, y, x] = position.T if kernel.ndim == 3 else position[:, None]
    return dense


CONTAINERS = {  # how the weights lie in the file
    "authors": lambda w: dict(model=w),
    "authors_v2": lambda w: dict(model_ema=w, epoch=3),
    "dinov3": lambda w: dict(
        teacher={
            **{f"backbone.{k}": v for k, v in w.items()},
            "dino_head.mlp.0.weight": torch.rand(3, 3),
        }
    ),
    "fcmae": lambda w: dict(
        model={
            **{f"encoder.{k}": v for k, v in w.items()},
            "mask_token": torch.rand(1, 512, 1, 1),
            "decoder.0.dwconv.weight": torch.rand(512, 1, 7, 7),
            "pred.bias": torch.rand(3072),
        }
    ),
    "mmpretrain": lambda w: dict(state_dict=w, meta={}),
    "mmpretrain_v2": lambda w: {"state_dict": {f"module.{k}": v for k, v in w.items()}},
}
ORIGIN = {
    "authors": "the authors' names",
    "authors_v2": "the authors' names",
    "dinov3": "DINOv3 or EUPE",
    "fcmae": "the authors' FCMAE, sparse",
    "mmpretrain": "mmpretrain",
    "mmpretrain_v2": "mmpretrain",
}


LEFT = {
    "authors": "classifier head (2), classifier norm (2)",
    "authors_v2": "classifier head (2), classifier norm (2)",
    "dinov3": "dino_head (1)",
    "fcmae": "decoder (1), mask_token (1), pred (1)",
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_published_names(tmp_path, name):
    weights, x = published(name), image()
    torch.save(CONTAINERS[name](weights), tmp_path / "a.pth")
    use_grn = name == "fcmae" or name.endswith("_v2")
    model, said = ours(SMALL, tmp_path / "a.pth", use_grn=use_grn)
    mine = stage_maps(model.stages, model, x)
    assert_same(mine, timm_maps(to_authors(name, weights), x, use_grn), name)
    assert f"{ORIGIN[name]}" in said
    assert f"not used: {LEFT.get(name, 'nothing')}; " in said


def test_mmpretrains_maps_have_its_norms(tmp_path):
    weights, x = published("mmpretrain"), image()
    torch.save(weights, tmp_path / "a.pth")
    model, said = ours(SMALL, tmp_path / "a.pth")
    before = timm_maps(to_authors("mmpretrain", weights), x)
    expected = [
        F.layer_norm(
            m.permute(0, 2, 3, 1),
            m.shape[1:2],
            weights[f"backbone.norm{i}.weight"],
            weights[f"backbone.norm{i}.bias"],
            1e-6,
        ).permute(0, 3, 1, 2)
        for i, m in enumerate(before)
    ]
    assert_same(model(x), expected, "mmpretrain, normalised")
    assert "not in the checkpoint: nothing" in said


def test_dinov3s_norm_is_of_the_last_map(tmp_path):
    weights = published("dinov3")
    torch.save(weights, tmp_path / "a.pth")
    model, said = ours(SMALL, tmp_path / "a.pth")
    assert torch.equal(model.norm3.weight, weights["norm.weight"])
    assert "not in the checkpoint: norm0 (2), norm1 (2), norm2 (2)" in said


@pytest.mark.parametrize("twin", [True, False])
def test_eupe_of_meta(tmp_path, twin):
    """DINOv3's names, beside which heads and feature norms may lie; timm reads them."""
    weights, x = published("dinov3"), image()
    if not twin:
        weights = {k: v for k, v in weights.items() if not k.startswith("norms.")}
    weights["projectors.teacher.0.weight"] = torch.rand(8, 32)
    torch.save(weights, tmp_path / "a.pth")
    model, said = ours(SMALL, tmp_path / "a.pth")
    mine = stage_maps(model.stages, model, x)
    assert_same(mine, timm_maps(weights, x), "EUPE")
    assert torch.equal(model.norm3.weight, weights["norm.weight"])
    assert "a.pth: EUPE, " in said
    left = "norms (2), projectors (1)" if twin else "projectors (1)"
    assert f"not used: {left}; not in the checkpoint: norm0 (2)" in said
    assert "norm3 (2)" not in said


TIMM = {
    "convnext_atto": dict(arch="atto"),  # pointwise layers as convolutions
    "convnext_tiny": dict(arch="tiny"),
    "convnextv2_nano": dict(arch="nano", use_grn=True),
    "convnextv2_tiny": dict(arch="tiny", use_grn=True),
}


@pytest.mark.parametrize("name", TIMM)
def test_timm(tmp_path, name):
    theirs = randomised(lambda: timm.create_model(name, num_classes=7)).eval()
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file(theirs.state_dict(), file)
    model, said = ours(source=file, **TIMM[name])
    mine = stage_maps(model.stages, model, image())
    assert_same(mine, stage_maps(theirs.stages, theirs, image()), name)
    assert "timm, " in said
    assert "not used: classifier head (2), classifier norm (2)" in said


@pytest.mark.parametrize("version", ["", "v2"])
def test_timm_features_only(tmp_path, version):
    name = f"convnext{version}_pico"
    theirs = randomised(lambda: timm.create_model(name, features_only=True)).eval()
    torch.save(dict(state_dict=theirs.state_dict()), tmp_path / "a.pth")
    model, said = ours("pico", tmp_path / "a.pth", use_grn=version == "v2")
    mine = stage_maps(model.stages, model, image())
    with torch.no_grad():
        assert_same(mine, theirs(image()), f"{name}, features_only")
    assert "timm, features_only" in said
    assert "not used: nothing" in said


@functools.cache  # noise takes its time
def timm_features(arch, **kwargs):
    name = f"convnext_{arch}"
    build = functools.partial(timm.create_model, name, num_classes=0, **kwargs)
    return randomised(build).eval()


@pytest.mark.parametrize("arch", ["tiny", "small", "base", "large"])
def test_dinov3_and_eupe_of_timm(tmp_path, arch):
    """And EUPE, which is the same model. The wide ones have few blocks here."""
    tags = ["dinov3"] if arch == "large" else ["dinov3", "eupe"]
    for tag in tags:
        pretrained = timm.get_pretrained_cfg(f"convnext_{arch}.{tag}_lvd1689m")
        assert pretrained.num_classes == 0
    if arch in ("tiny", "small"):
        theirs = timm_features(arch)
    else:
        theirs = timm_features(arch, depths=DEPTHS)
        arch = dict(depths=DEPTHS, channels=ARCHS[arch].channels)
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file(theirs.state_dict(), file)
    model, said = ours(arch, file)
    mine = stage_maps(model.stages, model, image())
    expected = stage_maps(theirs.stages, theirs, image())
    assert_same(mine, expected, f"timm, DINOv3 {arch}")
    assert torch.equal(model.norm3.bias, theirs.head.norm.bias)
    assert "not used: nothing" in said


CLIP = {  # model, width of the embedding, whether an MLP projects
    "base": ("base", 512, False),
    "base_w": ("base", 640, False),
    "large_d": ("large", 768, True),
}


def clip(theirs, width, mlp):
    """An OpenCLIP model with this image tower, its text tower cut short."""
    weights = {f"visual.trunk.{k}": v for k, v in theirs.state_dict().items()}
    channels = theirs.num_features
    if mlp:
        weights["visual.head.mlp.fc1.weight"] = torch.rand(2 * width, channels)
        weights["visual.head.mlp.fc1.bias"] = torch.rand(2 * width)
        weights["visual.head.mlp.fc2.weight"] = torch.rand(width, 2 * width)
    else:
        weights["visual.head.proj.weight"] = torch.rand(width, channels)
    weights["logit_scale"] = torch.tensor(4.6)
    weights["transformer.resblocks.0.mlp.c_fc.weight"] = torch.rand(4 * width, width)
    return weights


@pytest.mark.parametrize("name", CLIP)
def test_openclip(tmp_path, name):
    arch, width, mlp = CLIP[name]
    theirs = timm_features(arch, depths=DEPTHS)
    torch.save(dict(state_dict=clip(theirs, width, mlp)), tmp_path / "a.pt")
    arch = dict(depths=DEPTHS, channels=ARCHS[arch].channels)
    model, said = ours(arch, tmp_path / "a.pt")
    mine = stage_maps(model.stages, model, image())
    expected = stage_maps(theirs.stages, theirs, image())
    assert_same(mine, expected, f"OpenCLIP {name}")
    assert "OpenCLIP under 'visual.trunk.'" in said
    head = 3 if mlp else 1
    left = f"classifier norm (2), logit_scale (1), transformer (1), visual ({head})"
    assert left in said


def test_openclip_xxlarge(tmp_path, monkeypatch):
    """Its norms have another eps. Narrow: its file would have 3.4 GB."""
    size = dict(depths=(1, 1, 11, 1), dims=CHANNELS)
    theirs = timm_features("xxlarge", **size)
    narrow = ARCHS["xxlarge"]._replace(depths=size["depths"], channels=CHANNELS)
    monkeypatch.setitem(ARCHS, "xxlarge", narrow)
    torch.save(dict(state_dict=clip(theirs, 1024, mlp=False)), tmp_path / "a.pt")
    model, _ = ours("xxlarge", tmp_path / "a.pt")
    mine = stage_maps(model.stages, model, image())
    expected = stage_maps(theirs.stages, theirs, image())
    assert_same(mine, expected, "OpenCLIP xxlarge")


@pytest.mark.parametrize("version", ["", "V2"])
@pytest.mark.parametrize("sharded", [False, True])
def test_transformers_classification(tmp_path, version, sharded):
    config = getattr(transformers, f"ConvNext{version}Config")(**V1)
    model_class = getattr(transformers, f"ConvNext{version}ForImageClassification")
    theirs = randomised(lambda: model_class(config)).eval()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB" if sharded else "1GB")
    index = "model.safetensors.index.json"
    assert (tmp_path / index).exists() == sharded
    source = tmp_path / index if sharded else tmp_path  # a folder will do
    model, said = ours(SMALL, source, use_grn=version == "V2")
    body = theirs.convnextv2 if version else theirs.convnext
    mine = stage_maps(model.stages, model, image())
    expected = stage_maps(body.encoder.stages, theirs, image())
    assert_same(mine, expected, f"transformers{version}, classification")
    assert f"transformers under 'convnext{version.lower()}.'" in said
    assert "not used: classifier head (2), classifier norm (2)" in said


@pytest.mark.parametrize("version", ["", "V2"])
def test_transformers_backbone(tmp_path, version):
    config = getattr(transformers, f"ConvNext{version}Config")(**V1, out_features=ALL)
    model_class = getattr(transformers, f"ConvNext{version}Backbone")
    theirs = randomised(lambda: model_class(config)).eval()
    theirs.save_pretrained(tmp_path)
    model, said = ours(SMALL, tmp_path, use_grn=version == "V2")
    with torch.no_grad():
        expected = theirs(image()).feature_maps
    assert_same(model(image()), expected, f"transformers{version}, backbone")
    assert "not used: nothing; not in the checkpoint: nothing" in said


@pytest.mark.parametrize("name", ["Model", "Backbone"])
def test_transformers_dinov3(tmp_path, name):
    config = transformers.DINOv3ConvNextConfig(
        depths=list(DEPTHS), hidden_sizes=list(CHANNELS), out_features=ALL
    )
    model_class = getattr(transformers, f"DINOv3ConvNext{name}")
    theirs = randomised(lambda: model_class(config)).eval()
    theirs.save_pretrained(tmp_path)  # under "stages."
    torch.save(theirs.state_dict(), tmp_path / "a.bin")  # under "model.stages."
    for source in (tmp_path, tmp_path / "a.bin"):
        model, said = ours(SMALL, source)
        mine = stage_maps(model.stages, model, image())
        if hasattr(theirs, "layer_norm"):
            expected = stage_maps(theirs.model.stages, theirs, image())
            normed = theirs(image()).last_hidden_state[:, 1:]  # without the class token
            last = model(image())[3].flatten(2).transpose(1, 2)
            assert (last - normed).abs().max().item() <= 1e-5
        else:
            expected = theirs(image()).feature_maps
        assert_same(mine, expected, f"transformers, {model_class.__name__}")
        assert "transformers, DINOv3" in said
        assert "not used: nothing" in said


@pytest.mark.parametrize("arch", ["tiny", "small"])
def test_torchvision(tmp_path, arch):
    build = getattr(torchvision.models, f"convnext_{arch}")
    theirs = randomised(build).eval()
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    model, said = ours(arch, tmp_path / "a.pth")
    mine = stage_maps(model.stages, model, image())
    expected = stage_maps(theirs.features[1::2], theirs, image())
    assert_same(mine, expected, f"torchvision, {arch}")
    assert "torchvision, " in said
    assert "not used: classifier head (2), classifier norm (2)" in said


@pytest.mark.parametrize("config", [DET, SEG])
@pytest.mark.parametrize("era", ["authors", "mmpretrain"])
def test_released_detectors_and_segmentors(tmp_path, config, era):
    """The authors' have their names below 'backbone.', mmdet's and mmseg's
    mmpretrain's; necks and heads are named alike."""
    torch.manual_seed(1)
    source = build(config)
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter)
    released = {}
    for name, tensor in source.state_dict().items():
        if era == "mmpretrain" and name.startswith("backbone."):
            name = name.replace("dwconv", "depthwise_conv")
            name = name.replace("pwconv", "pointwise_conv")
        released[name] = tensor
    meta = dict(mmdet_version="2.19.0", CLASSES=("a", "b"), config="x = 1")
    torch.save(dict(meta=meta, state_dict=released), tmp_path / "a.pth")

    names = set(PUBLISHED[era]) if era == "mmpretrain" else set()
    assert names <= set(released)  # these are the published names
    torch.manual_seed(2)
    model = build(config)
    with logged() as messages:
        load_checkpoint(model, str(tmp_path / "a.pth"), logger="current")
    for name, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    (said,) = of_the_backbone(messages)  # no wall of missing and unexpected keys
    assert "not used: nothing; not in the checkpoint: nothing" in said
    # And the backbone alone, found without being told where.
    backbone, said = ours(SMALL, tmp_path / "a.pth")
    assert torch.equal(backbone.norm0.weight, source.backbone.norm0.weight)
    assert "under 'backbone.'" in said


def test_transformers_upernet_computes_the_same_logits(tmp_path):
    config = transformers.UperNetConfig(
        backbone_config=transformers.ConvNextConfig(**V1, out_features=ALL),
        hidden_size=16,
        auxiliary_in_channels=CHANNELS[2],
        auxiliary_channels=8,
        num_labels=150,
    )
    theirs = transformers.UperNetForSemanticSegmentation(config).eval()
    for name, tensor in theirs.state_dict().items():
        if tensor.is_floating_point():
            positive = name.endswith(("running_var", "norm.weight"))
            tensor.uniform_(0.5, 1.5) if positive else tensor.normal_(std=0.1)
    theirs.save_pretrained(tmp_path)
    model = build(SEG, layer_scale_init_value=1.0)
    with logged() as messages:
        load_checkpoint(model, str(tmp_path), logger="current")
    (said,) = of_the_backbone(messages)
    assert "transformers under 'backbone.'" in said
    assert "not used: nothing; not in the checkpoint: nothing" in said
    x = image(128)
    with torch.no_grad():
        features = model.extract_feat(x)
        logits = model.decode_head(features)
        auxiliary = model.auxiliary_head(features)
        expected = theirs(x).logits
        maps = theirs.backbone(x).feature_maps
        expected_auxiliary = theirs.auxiliary_head(maps)
    resized = F.interpolate(logits, x.shape[2:], mode="bilinear", align_corners=False)
    largest = (resized - expected).abs().max().item()
    print(f"largest difference, transformers UPerNet, logits: {largest:.1e}")
    assert largest <= 1e-5
    assert (auxiliary - expected_auxiliary).abs().max().item() <= 1e-5
    assert expected.std() > 1e-2
