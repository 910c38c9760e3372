# DINO-4scale with ConvNeXt-T by the recipe of detrex (github.com/IDEA-Research/detrex,
# projects/dino, DINO-ConvNeXt-Tiny-384-4scale): 51.4 box AP in 12 epochs from
# ImageNet-1K; detrex does not name the file of these weights.
_base_ = [
    '../_base_/models/dino_convnext.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/detr_12e.py', '../_base_/det_runtime.py'
]

weights = 'https://dl.fbaipublicfiles.com/convnext/convnext_tiny_1k_224.pth'
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights)))
