"""Exported DINO, DETR and Mask2Former: they compute what the toolboxes predict."""

import copy
import os
from pathlib import Path
from types import SimpleNamespace

import cv2
import mmdet
import mmseg
import pytest
import torch
from mmdet.models.layers import MSDeformAttnPixelDecoder
from mmdet.models.seg_heads import MaskFormerFusionHead
from mmdet.structures.mask import mask2bbox
from mmengine.config import ConfigDict
from torch import nn
from torch.nn import functional as F

from convnext_dense.commands.export import comparison, networks, writing
from convnext_dense.commands.export.detectors import queries
from convnext_dense.commands.export.detectors.mask_queries import (
    Mask2Former,
    mask_boxes,
)
from convnext_dense.commands.export.writing import export
from convnext_dense.config.options import load_config
from convnext_dense.engine.build import build_model
from convnext_dense.errors import InputError

from ..helpers.paths import ROOT, SHARED

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

DINO = ROOT / "configs/det/dino_4scale_convnext_t_coco.py"
PANOPTIC = ROOT / "configs/det/mask2former_convnext_t_coco_panoptic.py"
INSTANCE = ROOT / "configs/det/mask2former_convnext_t_coco.py"
MMDET, MMSEG = (Path(box.__file__).parent / ".mim/configs" for box in (mmdet, mmseg))
DEFORMABLE = MMDET / "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py"
DETR = MMDET / "detr/detr_r50_8xb2-150e_coco.py"
SEMANTIC = MMSEG / "mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py"

SLOW = pytest.mark.skipif(
    "CONVNEXT_DENSE_EVERY_ARCH" not in os.environ,
    reason="takes minutes: make test-export",
)
CHANNELS = (8, 16, 32, 64)
SIZES = dict(num_heads=4, num_groups=4, num_layers=1, num_queries=30, max_per_img=30)
WIDTHS = "embed_dims", "feat_channels", "out_channels", "feedforward_channels"


def small(config_file, **options):
    """A config with few channels, layers and queries, and a small ConvNeXt."""
    cfg = load_config(str(config_file))
    indices = cfg.model.backbone.out_indices
    if config_file.is_relative_to(MMDET) or config_file.is_relative_to(MMSEG):
        backbone = ConfigDict(type="ConvNeXt", out_indices=indices)
        cfg.model.backbone = backbone
    if "bbox_head" in cfg.model:
        cfg.model.bbox_head.setdefault("embed_dims", 256)
    # DINO's queries have 256 channels in mmdet 3.3, whatever the config says.
    width = 256 if config_file == DINO else 32
    sizes = dict(SIZES, **dict.fromkeys(WIDTHS, width), num_feats=width // 2)
    sizes["in_channels"] = [CHANNELS[i] for i in indices]
    shrink(cfg.model, sizes)
    cfg.model.backbone.arch = dict(depths=[1] * 4, channels=CHANNELS)
    cfg.model.data_preprocessor.update(options)
    return cfg


def shrink(config, sizes):
    """Set the entries of ``sizes`` wherever ``config`` has them."""
    for key, value in config.items():
        if key in sizes:
            config[key] = sizes[key]
        elif isinstance(value, dict):
            shrink(value, sizes)


def spread(model):
    """Random weights with which scores and boxes depend on the image."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if values.ndim > 1:
                values.normal_(0, 1.5 * values[0].numel() ** -0.5, generator=generator)
            elif name.endswith("bias") and "cls_branches" in name:
                values.fill_(-3)
            if name.endswith("cls_embed.weight"):
                values.mul_(4)


def network(cfg, path):
    """The network of ``cfg`` with a checkpoint of spread weights at ``path``."""
    model = build_model(copy.deepcopy(cfg), "cpu")  # mmdet adds to the config
    spread(model)
    torch.save(dict(state_dict=model.state_dict()), path)
    cfg.load_from = str(path)
    return networks.build(cfg, backbone=False)


def photographs(*sizes):
    """Photographs of these sizes, (1, 3, H, W) in RGB; noise where there are none."""
    folder = SHARED / "data/coco_tiny/val2017"
    if not folder.is_dir():
        return [networks._picture(1, *size) for size in sizes]
    files = sorted(folder.glob("*.jpg"))[: len(sizes)]
    images = [
        cv2.resize(cv2.imread(str(file)), (width, height))
        for file, (height, width) in zip(files, sizes, strict=True)
    ]
    return [
        torch.from_numpy(i[..., ::-1].copy()).permute(2, 0, 1)[None].float()
        for i in images
    ]


@pytest.mark.parametrize(
    ("config_file", "options"),
    [
        (DINO, {}),
        (DINO, dict(pad_size_divisor=32)),
        (DEFORMABLE, {}),
        (DETR, {}),
        (PANOPTIC, {}),
        (SEMANTIC, {}),
    ],
)
def test_networks_compute_what_the_toolboxes_predict(tmp_path, config_file, options):
    cfg = small(config_file, **options)
    net = network(cfg, tmp_path / "weights.pth")
    images = photographs((128, 160), (100, 97), (131, 203))
    with torch.no_grad():
        references = [net.reference(image) for image in images]
        before = [type(module) for module in net.module.modules()]
        with networks.traceable(net.module):
            outputs = [writing._sequence(net.module(image)) for image in images]
    for expected, actual in zip(references, outputs, strict=True):
        result = net.compare([(expected, actual)])
        assert result.close, result.text
        if config_file != SEMANTIC:
            matches = comparison.match(expected, actual, "masks" in net.outputs)
            assert matches.compared > 3
            assert matches.missing == 0
    # Only DETR can be traced as it is.
    unchanged = before == [type(module) for module in net.module.modules()]
    assert unchanged == (config_file == DETR)


def test_rounding_of_mask2former(tmp_path):
    net, images = network(small(SEMANTIC), tmp_path / "w.pth"), photographs((100, 97))
    expected = [net.reference(image) for image in images]
    assert 1e-7 < writing._rounding(net, images, expected) < 1e-4
    exact = net.reference(images[0].double())
    assert exact[0].dtype == torch.float64


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([3, 0, 1], [3, 0, 1]),  # nearly the same score
        ([3, 0, 2], [0, 3, 1]),  # not one of the best
        ([3, 3, 1], [0, 3, 1]),  # one cell twice
        ([1, 0, 3], [0, 3, 1]),  # another order
        (None, [0, 3, 1]),
    ],
)
def test_only_rounding_moves_queries(cells, expected):
    scores = torch.tensor([[0.9, 0.6, 0.1, 0.89999]])
    replacement = None if cells is None else torch.tensor(cells)
    with queries._Cells(replacement) as mode:
        assert torch.topk(scores, 3, dim=1)[1].tolist() == [expected]
    assert mode.best.tolist() == [0, 3, 1]


def test_queries_in_another_place_are_counted():
    boxes = torch.tensor([[1.0, 2, 3, 4]])
    expected = (boxes, torch.ones(1), torch.ones(1).long(), torch.tensor([0, 3, 1]))
    moved = (*expected[:3], torch.tensor([3, 0, 1]))
    result = comparison.queries([(expected, moved)])
    assert result.close
    assert result.text.endswith("2 of 3 queries have another place by rounding")
    assert not comparison.queries([(expected, (boxes + 1, *moved[1:]))]).close


def exported(config_file, out):
    """Export a small model with spread weights; return its network."""
    cfg, weights = small(config_file), out.with_name("weights.pth")
    net = network(copy.deepcopy(cfg), weights)
    cfg.load_from = str(weights)
    export(cfg, out)
    return net


def assert_equal_on_photographs(net, run):
    """Compare ``run``, which runs an exported file, with the toolbox."""
    for image in photographs((200, 170), (117, 131), (161, 203)):
        outputs = run(image)
        with torch.no_grad():
            if net.reference_like:
                expected = net.reference_like(image, outputs)
            else:
                expected = net.reference(image)
        result = net.compare([(expected, outputs)])
        print(tuple(image.shape), result.text)
        assert result.close, result.text


@SLOW
@pytest.mark.parametrize("config_file", [DINO, PANOPTIC, SEMANTIC])
def test_whole_models_to_onnx(tmp_path, config_file):
    net = exported(config_file, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")

    def run(image):
        return list(map(torch.from_numpy, session.run(None, {"image": image.numpy()})))

    assert_equal_on_photographs(net, run)


@SLOW
@pytest.mark.parametrize("config_file", [DINO, PANOPTIC, SEMANTIC])
def test_torch_export(tmp_path, config_file):
    net = exported(config_file, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    assert_equal_on_photographs(net, lambda image: writing._sequence(program(image)))


class Pyramid(nn.Module):
    """A pixel decoder on averages of an image."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, image):
        """Return the mask features and the smallest map."""
        maps = [F.avg_pool2d(image, stride) for stride in (8, 16, 32)]
        features, maps = self.decoder(maps)
        return features, maps[0]


@SLOW
def test_deformable_attention_to_onnx(tmp_path, monkeypatch):
    cfg = small(INSTANCE)
    settings = cfg.model.panoptic_head.pixel_decoder
    settings.encoder.layer_cfg.self_attn_cfg.num_levels = 2
    settings.update(in_channels=[3] * 3, strides=[8, 16, 32])
    settings.pop("type")
    decoder = MSDeformAttnPixelDecoder(**settings, feat_channels=32, out_channels=32)
    decoder.eval()
    spread(decoder)
    module = Pyramid(decoder)
    net = networks.Network(
        module, module, networks._picture, ["features", "smallest"], {}
    )
    monkeypatch.setattr(networks, "build", lambda *_: net)
    export(cfg, tmp_path / "decoder.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "decoder.onnx")
    image = networks._picture(3, 223, 97)
    outputs = session.run(None, {"image": image.numpy()})
    with torch.no_grad():
        pairs = [(module(image), [torch.from_numpy(o) for o in outputs])]
    assert comparison.maps(pairs).close


@pytest.mark.parametrize("filter_low_score", [False, True])
@pytest.mark.parametrize("threshold", [0.3, 1.1])
def test_segments(filter_low_score, threshold):
    """Overlapping, hidden and unsure segments of things and stuff; or none at all."""
    settings = dict(
        object_mask_thr=threshold, iou_thr=0.4, filter_low_score=filter_low_score
    )
    head = MaskFormerFusionHead(4, 3, test_cfg=ConfigDict(settings))
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(20, 8, generator=generator)
    coarse = 6 * torch.randn(20, 1, 4, 5, generator=generator) - 8
    masks = F.interpolate(coarse, (41, 53), mode="bilinear")[:, 0]
    expected = head.panoptic_postprocess(logits, masks).sem_seg[0]
    detector = SimpleNamespace(settings=settings, classes=7, things=4)
    actual = Mask2Former._panoptic(detector, logits, masks)
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    assert (actual == expected).all()
    assert (len(expected.unique()) > 4) == (threshold < 1)


def test_boxes_of_masks():
    masks = torch.zeros(4, 9, 12, dtype=torch.bool)
    masks[1, 3:5, 2:9] = masks[2, 0, 0] = masks[3] = True
    assert (mask_boxes(masks) == mask2bbox(masks)).all()


def test_what_differs_is_seen():
    masks = torch.zeros(2, 20, 20, dtype=torch.bool)
    masks[0, :5], masks[1, 10:] = True, True
    boxes, scores = mask_boxes(masks), torch.tensor([0.9, 0.6])
    labels, panoptic = torch.tensor([1, 2]), torch.arange(400).view(20, 20)
    expected = (boxes, scores, labels, masks, panoptic)
    order = [1, 0]
    moved = (boxes + 3, scores[order], labels[order], masks[order], panoptic)
    moved = (boxes[order] + 3, *moved[1:])  # boxes follow from masks
    assert comparison.segments([(expected, moved)]).close
    other = masks.clone()
    other[0, 5:8] = True
    assert not comparison.segments([(expected[:4], (*expected[:3], other))]).close
    assert not comparison.segments([((panoptic,), (panoptic // 2,))]).close


def test_settings_that_cannot_be_exported(tmp_path):
    cfg = small(DETR, pad_size_divisor=32)
    with pytest.raises(InputError, match="pad_size_divisor is 32, and a whole"):
        networks.build(cfg, backbone=False)
    cfg = small(INSTANCE)
    cfg.model.test_cfg.update(panoptic_on=False, instance_on=False)
    with pytest.raises(InputError, match="only with either"):
        networks.build(cfg, backbone=False)
