# As linear_convnext_t_eupe_ade20k.py, on EUPE's ConvNeXt-B: 48.9 mIoU.
_base_ = './linear_convnext_b_dinov3_ade20k.py'

weights = 'timm://convnext_base.eupe_lvd1689m'
model = dict(backbone=dict(init_cfg=dict(checkpoint=weights)))
