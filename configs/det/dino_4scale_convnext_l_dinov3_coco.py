# As dino_4scale_convnext_t_dinov3_coco.py, with ConvNeXt-L. No recipe is published.
_base_ = './dino_4scale_convnext_t_dinov3_coco.py'

weights = 'timm://convnext_large.dinov3_lvd1689m'
model = dict(
    backbone=dict(arch='large', init_cfg=dict(checkpoint=weights)),
    neck=dict(in_channels=[384, 768, 1536]))
