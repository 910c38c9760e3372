"""Parameters and multiply-adds of a detector or segmentor, as the paper counts them.

The model is built on the meta device, so that nothing is computed and no data
or weights are needed; PyTorch's own counter counts the matrix products and
convolutions.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from mmengine.config import Config
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convnext_dense.engine.build import build_model
from convnext_dense.errors import InputError

SHAPES = {"mmdet": (800, 1280), "mmseg": (512, 2048)}  # height, width
# How many regions the authors sent through each head of a two-stage detector.
BOXES, MASKS = 1000, 100


class Complexity(NamedTuple):
    """Parameters, and multiply-adds of one image of ``shape`` (height, width)."""

    shape: tuple[int, int]
    params: int
    macs: int


def measure(cfg: Config, shape: tuple[int, int] | None = None) -> Complexity:
    """Count the parameters and multiply-adds of a config's model.

    As in the paper's tables 3 and 4 (arXiv 2201.03545): parameters include the
    auxiliary head of a segmentor, multiply-adds do not; each box head of a
    two-stage detector gets 1000 regions, each mask head 100.

    Args:
        shape: height and width of the image, in pixels; 800 x 1280 for a
            detector and 512 x 2048 for a segmentor if left out.

    Raises:
        InputError: the model cannot be built, or not fed an image of that shape.
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
            f"{shape[1]} pixels: {type(error).__name__}: {error}"
        ) from error
    params = sum(parameter.numel() for parameter in model.parameters())
    return Complexity(shape, params, counter.get_total_flops() // 2)


def _forward(model: nn.Module, image: torch.Tensor) -> None:
    if not getattr(model, "with_roi_head", False):
        model(image, mode="tensor")
        return
    # mmdet's own dummy forward sends every region through the mask heads too.
    maps = model.extract_feat(image)
    if model.with_rpn:
        model.rpn_head(maps)
    head = model.roi_head
    if head.with_bbox:
        _feed(head.bbox_head, head.bbox_roi_extractor, BOXES)
    if head.with_mask:
        _feed(head.mask_head, head.mask_roi_extractor, MASKS)


def _feed(heads: nn.Module, extractors: nn.Module, count: int) -> None:
    for head, extractor in zip(_each(heads), _each(extractors), strict=True):
        size = extractor.roi_layers[0].output_size
        head(torch.empty(count, extractor.out_channels, *size))


def _each(heads: nn.Module) -> Iterator[nn.Module]:
    """A cascade has a list of heads, one a stage."""
    yield from heads if isinstance(heads, nn.ModuleList) else [heads]
