"""Moved to ``convnext_dense.projects.coco_o``; this path stays for old configs."""

from convnext_dense.projects.coco_o import CocoOEvaluator

__all__ = ["CocoOEvaluator"]
