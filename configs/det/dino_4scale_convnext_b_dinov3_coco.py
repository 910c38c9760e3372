# As dino_4scale_convnext_t_dinov3_coco.py, with ConvNeXt-B. No recipe is published.
_base_ = './dino_4scale_convnext_t_dinov3_coco.py'

weights = 'timm://convnext_base.dinov3_lvd1689m'
model = dict(
    backbone=dict(arch='base', init_cfg=dict(checkpoint=weights)),
    neck=dict(in_channels=[256, 512, 1024]))
