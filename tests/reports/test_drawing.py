"""Drawings of predictions."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData

from convnext_dense.reports.drawing import Drawer


@pytest.mark.parametrize("segments", [0, 1])
def test_panoptic_maps_with_and_without_segments(segments):
    image = np.full((48, 64, 3), 90, np.uint8)
    panoptic = torch.full((1, 48, 64), 2)  # the number of classes: no segment
    panoptic[:, 10:30, 10:40] = 1001 if segments else 2
    sample = DetDataSample(
        pred_panoptic_seg=PixelData(sem_seg=panoptic),
        pred_instances=InstanceData(
            bboxes=torch.zeros(0, 4),
            scores=torch.zeros(0),
            labels=torch.zeros(0, dtype=torch.long),
        ),
    )
    picture = Drawer("mmdet", dict(classes=("a", "b"))).prediction(image, sample)
    assert (picture == image).all() != bool(segments)
    assert "pred_panoptic_seg" in sample  # which others may read
