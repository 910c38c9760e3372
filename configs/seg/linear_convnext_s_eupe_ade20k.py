# As linear_convnext_t_eupe_ade20k.py, on EUPE's ConvNeXt-S: 46.8 mIoU.
_base_ = './linear_convnext_s_dinov3_ade20k.py'

weights = 'timm://convnext_small.eupe_lvd1689m'
model = dict(backbone=dict(init_cfg=dict(checkpoint=weights)))
