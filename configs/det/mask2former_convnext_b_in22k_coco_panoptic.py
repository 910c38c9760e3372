# As mask2former_convnext_t_coco_panoptic.py, with ConvNeXt-B. No number is published.
_base_ = './mask2former_convnext_t_coco_panoptic.py'

weights = 'https://dl.fbaipublicfiles.com/convnext/convnext_base_22k_224.pth'
model = dict(
    backbone=dict(arch='base', init_cfg=dict(checkpoint=weights)),
    panoptic_head=dict(in_channels=[128, 256, 512, 1024]))
