# Mask2Former with ConvNeXt-T for panoptic segmentation. The recipe is that of the paper
# (arXiv 2112.01527) for ResNet-50 and Swin-T; no number is published for ConvNeXt.
_base_ = [
    '../_base_/models/mask2former_panoptic_convnext.py',
    '../_base_/datasets/coco_panoptic_lsj.py',
    '../_base_/schedules/mask2former_50e.py', '../_base_/det_runtime.py'
]

weights = 'https://dl.fbaipublicfiles.com/convnext/convnext_tiny_1k_224.pth'
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights)))

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000))
log_processor = dict(by_epoch=False)
