"""Random targets for training steps of detectors and segmentors."""

import numpy as np
import torch

BOXES = 8  # in each image


def detection_target(height: int, width: int):
    """A ``DetDataSample`` with boxes, masks and labels, for an image of this size."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    size = torch.tensor([width, height])
    corners = torch.rand(BOXES, 2) * size * 0.7
    boxes = torch.cat([corners, corners + size * 0.25], 1)
    masks = np.zeros((BOXES, height, width), np.uint8)
    for mask, (left, top, right, bottom) in zip(
        masks, boxes.int().tolist(), strict=True
    ):
        mask[top:bottom, left:right] = 1
    shape = dict(img_shape=(height, width), batch_input_shape=(height, width))
    sample = DetDataSample(metainfo=dict(shape, scale_factor=(1.0, 1.0)))
    sample.gt_instances = InstanceData(
        bboxes=boxes,
        labels=torch.zeros(BOXES, dtype=torch.long),
        masks=BitmapMasks(masks, height, width),
    )
    return sample


def segmentation_target(height: int, width: int):
    """A ``SegDataSample`` with a label map of two classes, of this size."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=dict(img_shape=(height, width)))
    sample.gt_sem_seg = PixelData(data=torch.randint(0, 2, (1, height, width)))
    return sample
