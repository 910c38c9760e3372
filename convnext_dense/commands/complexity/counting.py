"""Parameters and multiply-adds of a detector or segmentor, as the paper counts them.

The model is built on the meta device: tensors have shapes and no values, so that
nothing is computed and no data or weights are needed. PyTorch's FlopCounterMode counts
the matrix products and convolutions.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.model import BaseModel, BaseModule
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convnext_dense.engine.build import build_model
from convnext_dense.errors import InputError
from convnext_dense.utils.text import reason

SHAPES = {"mmdet": (800, 1280), "mmseg": (512, 2048)}  # height, width
# Regions (RoIs) that the authors sent through each box head and each mask head of a
# two-stage detector.
BOX_REGIONS, MASK_REGIONS = 1000, 100


class Complexity(NamedTuple):
    """Size and cost of a model.

    Attributes:
        shape: height and width of the image, in pixels.
        params: number of parameters.
        macs: multiply-adds of a forward pass of one image.
    """

    shape: tuple[int, int]
    params: int
    macs: int


def measure(cfg: Config, shape: tuple[int, int] | None = None) -> Complexity:
    """Count the parameters and multiply-adds of a config's model.

    As in the paper's tables 3 and 4 (arXiv 2201.03545): parameters include the
    auxiliary head of a segmentor, multiply-adds do not; each box head of a
    two-stage detector gets 1000 regions, each mask head 100.

    Args:
        cfg: config of a detector or segmentor.
        shape: height and width of the image, in pixels. None is 800 x 1280 for a
            detector and 512 x 2048 for a segmentor.

    Raises:
        InputError: the model cannot be built, or does not take an image of ``shape``.
    """
    model = build_model(cfg).eval()
    shape = shape or SHAPES[cfg.default_scope]
    counter = FlopCounterMode(display=False)
    try:
        with torch.device("meta"), torch.no_grad(), counter:
            _forward(model, torch.empty(1, 3, *shape))
    except InputError:
        raise
    except Exception as error:  # whatever a toolbox's model can raise
        raise InputError(
            f"the model of {cfg.filename} does not take an image of {shape[0]} x "
            f"{shape[1]} pixels: {reason(error)}"
        ) from error
    params = sum(parameter.numel() for parameter in model.parameters())
    return Complexity(shape, params, counter.get_total_flops() // 2)


def _forward(model: BaseModel, image: torch.Tensor) -> None:
    """Run everything that the paper counts, on an image (1, 3, H, W)."""
    if not getattr(model, "with_roi_head", False):
        model(image, mode="tensor")
        return
    # Not mode="tensor": it sends all 1000 regions through the mask heads too.
    maps = model.extract_feat(image)
    if model.with_rpn:
        model.rpn_head(maps)
    head = model.roi_head
    if head.with_bbox:
        _feed(head.bbox_head, head.bbox_roi_extractor, BOX_REGIONS)
    if head.with_mask:
        _feed(head.mask_head, head.mask_roi_extractor, MASK_REGIONS)


def _feed(heads: BaseModule, extractors: BaseModule, count: int) -> None:
    """Run each head on ``count`` regions of the size that its extractor cuts out."""
    for head, extractor in zip(_each(heads), _each(extractors), strict=True):
        size = extractor.roi_layers[0].output_size
        head(torch.empty(count, extractor.out_channels, *size))


def _each(heads: BaseModule) -> Iterator[BaseModule]:
    """The heads, or extractors, of a detector: one, or a cascade's list of them."""
    yield from heads if isinstance(heads, nn.ModuleList) else [heads]
