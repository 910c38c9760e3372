# As dino_4scale_convnext_t_dinov3_coco.py, with ConvNeXt-S. No recipe is published.
_base_ = './dino_4scale_convnext_t_dinov3_coco.py'

weights = 'timm://convnext_small.dinov3_lvd1689m'
model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint=weights)))
