# As linear_convnext_t_dinov3_ade20k.py, on DINOv3's ConvNeXt-B: 46.3 mIoU.
_base_ = './linear_convnext_t_dinov3_ade20k.py'

weights = 'timm://convnext_base.dinov3_lvd1689m'
model = dict(
    backbone=dict(arch='base', init_cfg=dict(checkpoint=weights)),
    decode_head=dict(in_channels=1024, channels=1024))
