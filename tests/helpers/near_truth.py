"""A detector whose predictions are near the truth, so that metrics are not zero."""

import numpy as np
import torch
from mmdet.models import CascadeRCNN
from mmengine.registry import MODELS
from mmengine.structures import InstanceData


@MODELS.register_module(force=True)
class NearTruth(CascadeRCNN):
    """Predicts the ground truth with random errors, which depend only on the image."""

    def predict(self, batch_inputs, batch_data_samples, rescale=True):
        samples = super().predict(batch_inputs, batch_data_samples, rescale)
        for sample in samples:
            rng, truth = np.random.default_rng(sample.img_id), sample.gt_instances
            count = len(truth)
            boxes = truth.bboxes + rng.normal(0, 4, (count, 4))
            wrong = torch.from_numpy(rng.random(count) < 0.2)
            masks = np.roll(truth.masks.to_ndarray(), rng.integers(0, 9), axis=2)
            sample.pred_instances = InstanceData(
                bboxes=boxes.float(),
                labels=torch.where(wrong, (truth.labels + 1) % 5, truth.labels),
                scores=torch.from_numpy(rng.random(count)).float(),
                masks=torch.from_numpy(masks.astype(bool)),
            )
        return samples
