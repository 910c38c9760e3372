"""Experiments of papers on top of the backbone: the roadmap, COCO-O, ImageNet-S."""
