# As linear_convnext_t_dinov3_ade20k.py, on DINOv3's ConvNeXt-S: 44.8 mIoU.
_base_ = './linear_convnext_t_dinov3_ade20k.py'

weights = 'timm://convnext_small.dinov3_lvd1689m'
model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint=weights)))
