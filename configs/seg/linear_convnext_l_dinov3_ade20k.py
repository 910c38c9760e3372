# As linear_convnext_t_dinov3_ade20k.py, on DINOv3's ConvNeXt-L: 47.8 mIoU.
_base_ = './linear_convnext_t_dinov3_ade20k.py'

weights = 'timm://convnext_large.dinov3_lvd1689m'
model = dict(
    backbone=dict(arch='large', init_cfg=dict(checkpoint=weights)),
    decode_head=dict(in_channels=1536, channels=1536))
