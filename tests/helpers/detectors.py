"""Detectors of mmdet on ConvNeXt, with weights whose scores are spread out."""

from pathlib import Path

import mmdet
import torch
from mmengine.config import Config

from convnext_dense.engine.build import build_model
from convnext_dense.models.archs import ARCHS

from .paths import ROOT

MMDET = Path(mmdet.__file__).parent / ".mim/configs"
CONFIGS = {
    "cascade_mask_rcnn": ROOT / "configs/det/cascade_mask_rcnn_convnext_t_coco.py",
    "mask_rcnn": ROOT / "configs/det/mask_rcnn_convnext_t_coco.py",
    "retinanet": MMDET / "retinanet/retinanet_r50_fpn_1x_coco.py",
    "rtmdet": MMDET / "rtmdet/rtmdet_s_8xb32-300e_coco.py",
}
TINY = dict(arch="tiny")
# One block in each stage and few channels.
SMALL = dict(arch=dict(depths=[1] * 4, channels=[8, 16, 32, 64]))
# The layers that predict: the mean and deviation that their outputs get.
PREDICTORS = {
    "rpn_cls": (0, 2),
    "rpn_reg": (0, 0.3),
    "fc_cls": (0, 3),
    "fc_reg": (0, 1),
    "conv_logits": (0, 3),
    "retina_cls": (-4, 1.5),
    "retina_reg": (0, 0.3),
    "rtm_cls": (-4, 1.5),
    "rtm_reg": (0.5, 0.5),
}


def config(family, backbone):
    """The config of a family of ``CONFIGS`` with a ConvNeXt of these options.

    With ``SMALL`` the necks and heads are narrow, too, and there are 7 classes.
    """
    cfg = Config.fromfile(CONFIGS[family])
    model = cfg.model
    first = 1 if family == "rtmdet" else 0
    model.backbone = dict(
        type="ConvNeXt", out_indices=tuple(range(first, 4)), **backbone
    )
    arch = backbone["arch"]
    channels = arch["channels"] if isinstance(arch, dict) else ARCHS[arch].channels
    model.neck.in_channels = list(channels[first:])
    if family == "rtmdet":  # as its network pads; mmdet's own fails at most sizes
        model.data_preprocessor.pad_size_divisor = 32
    if backbone is SMALL:
        _shrink(model)
        if family == "cascade_mask_rcnn":  # Mask R-CNN has boxes for each class
            for head in model.roi_head.bbox_head:
                head.reg_class_agnostic = True
    cfg.load_from = None
    return cfg


def two_levels(cfg):
    """Keep strides 4 and 8 of a two-stage detector: tracing takes time for each."""
    model = cfg.model
    model.backbone.out_indices = (0, 1)
    model.neck.update(in_channels=model.neck.in_channels[:2], num_outs=2)
    model.rpn_head.anchor_generator.strides = [4, 8]
    for name in ("bbox_roi_extractor", "mask_roi_extractor"):
        model.roi_head[name].update(featmap_strides=[4, 8], finest_scale=16)
    return cfg


# What SMALL sets in necks and heads. Widths are all the same.
NARROW = {
    "num_classes": 7,
    "num_convs": 1,
    "num_csp_blocks": 1,
    "num_shared_convs": 1,
    "stacked_convs": 1,
    "max_per_img": 30,
    "nms_pre": 300,
}
WIDTHS = ("in_channels", "out_channels", "feat_channels")


def _shrink(settings):
    """Make necks and heads narrow, for all that ``settings`` contain."""
    if isinstance(settings, list):
        for item in settings:
            _shrink(item)
    elif isinstance(settings, dict):
        for key, value in settings.items():
            if key.endswith(WIDTHS) and isinstance(value, int):
                settings[key] = 16
            else:
                settings[key] = NARROW.get(key, value)
                _shrink(value)


def spread(cfg, image):
    """Build the model of ``cfg`` with predictions that differ from place to place.

    Each layer of ``PREDICTORS`` is scaled when it is first used, so that each channel
    has the same mean and deviation over ``image``, (3, H, W) in RGB.
    """
    torch.manual_seed(0)
    model = build_model(cfg, "cpu").eval().requires_grad_(False)
    for name, module in model.named_modules():
        for predictor, target in PREDICTORS.items():
            if predictor in name.split(".") and hasattr(module, "weight"):
                module.register_forward_hook(_scale_once(*target))
    detect(model, image)
    return model


def _scale_once(mean, deviation):
    """A forward hook that scales a layer and its output, the first time only."""
    done = []

    def hook(module, inputs, output):
        if done:
            return None
        done.append(True)
        dims = [dim for dim in range(output.ndim) if dim != 1]
        std, average = torch.std_mean(output, dims)
        factor = deviation / std.clamp(min=1e-6)
        shape = [-1] + [1] * (module.weight.ndim - 1)
        module.weight.mul_(factor.view(shape))
        module.bias.sub_(average).mul_(factor).add_(mean)
        return module(*inputs)

    return hook


def detect(model, image):
    """mmdet's predictions for ``image``, (3, H, W) in RGB from 0 to 255."""
    from mmdet.structures import DetDataSample

    size = tuple(image.shape[1:])
    meta = dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0))
    data = dict(inputs=[image.flip(0)], data_samples=[DetDataSample(metainfo=meta)])
    with torch.no_grad():
        return model.test_step(data)[0].pred_instances
