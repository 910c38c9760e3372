"""Papers built on this backbone: roadmap, COCO-O, ImageNet-S."""
