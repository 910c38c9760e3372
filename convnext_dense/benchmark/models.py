"""Whole training steps of a config's model, with our backbone and with timm's."""

import copy

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from ..backbone import ConvNeXt
from ..errors import InputError
from ..runtime import build_model, fit_to_machine
from . import clock, peers
from .backbones import Row
from .peers import OURS

BOXES = 8  # in each image


class _TimmBackbone(nn.Module):
    """timm's stages with the output norms of ours."""

    def __init__(self, ours: ConvNeXt):
        super().__init__()
        (peer,) = peers.build(ours, ["timm"])
        self.stages = peer.module
        self.norms = nn.ModuleList(
            copy.deepcopy(getattr(ours, f"norm{i}")) for i in range(4)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(n(m) for n, m in zip(self.norms, self.stages(x), strict=True))


def compare(
    cfg: Config, size: int, batch: int, device: str, dtype: str, seconds: float
) -> list[Row]:
    """Forward pass, losses, backward pass and AdamW's step on made-up images.

    Args:
        cfg: a detector's or segmentor's, with this package's backbone.
        size: side of the images in pixels.
        batch: how many there are.
        dtype: fp32, or bf16 for autocast.
        seconds: how long to time.

    Returns:
        a row for our backbone and one for timm's, in the channels_last memory format.

    Raises:
        InputError: the model cannot be built or has another backbone.
    """
    if not isinstance(getattr(build_model(cfg), "backbone", None), ConvNeXt):
        raise InputError(f"{cfg.filename} has no ConvNeXt of this package to exchange")
    fit_to_machine(cfg)
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    twin = copy.deepcopy(model)
    twin.backbone = _TimmBackbone(model.backbone)
    model, twin = (
        m.to(device, memory_format=torch.channels_last) for m in (model, twin)
    )

    x = torch.rand(1, 3, 64, 96, device=device)
    peer = peers.Peer("timm", twin.backbone.eval(), normed=True)
    for mine, theirs in zip(model.backbone.eval()(x), peer.module(x), strict=True):
        if not (mine - theirs).abs().max() <= 1e-3 * mine.abs().max():
            raise InputError("the two backbones do not compute the same")

    data = _detections if cfg.default_scope == "mmdet" else _labels
    images = [
        torch.randint(0, 256, (3, size, size), dtype=torch.uint8) for _ in range(batch)
    ]
    inputs = dict(inputs=images, data_samples=[data(size) for _ in images])
    steps = [_step(m, inputs, device, dtype) for m in (model, twin)]
    times = clock.in_turn(steps, device, seconds)
    peaks = [clock.peak_bytes(step, device) for step in steps]
    return [
        Row(library, "channels_last", ms, ms / times[1], 0.0, 0, peak)
        for library, ms, peak in zip((OURS, "timm"), times, peaks, strict=True)
    ]


def _step(model, inputs, device, dtype):
    model.train()
    wanted = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(wanted, lr=1e-6)

    def step():
        data = model.data_preprocessor(copy.deepcopy(inputs), True)
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bf16"):
            losses = model(**data, mode="loss")
        model.parse_losses(losses)[0].backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _detections(size: int):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    corners = torch.rand(BOXES, 2) * size * 0.7
    boxes = torch.cat([corners, corners + size * 0.25], 1)
    masks = np.zeros((BOXES, size, size), np.uint8)
    for mask, (left, top, right, bottom) in zip(
        masks, boxes.int().tolist(), strict=True
    ):
        mask[top:bottom, left:right] = 1
    shape = dict(img_shape=(size, size), batch_input_shape=(size, size))
    sample = DetDataSample(metainfo=dict(shape, scale_factor=(1.0, 1.0)))
    sample.gt_instances = InstanceData(
        bboxes=boxes,
        labels=torch.zeros(BOXES, dtype=torch.long),
        masks=BitmapMasks(masks, size, size),
    )
    return sample


def _labels(size: int):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=dict(img_shape=(size, size)))
    sample.gt_sem_seg = PixelData(data=torch.randint(0, 2, (1, size, size)))
    return sample
