"""mIoU on ImageNet-S, and predictions in the format of its label maps (RGB)."""

from collections.abc import Sequence
from pathlib import Path

import mmcv
import numpy as np
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS

from .dataset import IGNORED


@METRICS.register_module()
class ImageNetSMetric(IoUMetric):
    """``IoUMetric`` over the 920 ids. Writes predictions that can be submitted.

    As in the baselines' evaluation, a category that occurs neither in labels nor in
    predictions counts as 0. Predictions are written to
    ``output_dir/<wnid>/<image>.png`` with the colours (id % 256, id // 256, 0): label
    maps of 8 bits cannot hold 920 ids.

    Args:
        kwargs: arguments of mmseg's ``IoUMetric``.
    """

    output_dir: str | None

    def __init__(self, **kwargs):
        super().__init__(
            iou_metrics=["mIoU"], ignore_index=IGNORED, nan_to_num=0, **kwargs
        )

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Add a batch to the metric and write its predictions to ``output_dir``."""
        # Without output_dir, IoUMetric does not write 8-bit files.
        output_dir, self.output_dir = self.output_dir, None
        super().process(data_batch, data_samples)
        self.output_dir = output_dir
        if output_dir is None:
            return
        for sample in data_samples:
            image = Path(sample["img_path"])
            ids = sample["pred_sem_seg"]["data"].squeeze().cpu().numpy()
            bgr = np.stack([np.zeros_like(ids), ids // 256, ids % 256], -1)
            file = Path(output_dir) / image.parent.name / f"{image.stem}.png"
            mmcv.imwrite(bgr.astype(np.uint8), str(file))
