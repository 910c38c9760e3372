"""Moved to ``convnext_dense.datasets.custom.mmseg_dataset``, for old configs."""

from convnext_dense.datasets.custom.mmseg_dataset import (
    LabelMapDataset,
    LoadLabelMapAnnotations,
)

__all__ = ["LabelMapDataset", "LoadLabelMapAnnotations"]
