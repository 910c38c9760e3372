# DINOv3's distilled ConvNeXt-T (arXiv 2508.10104) with the recipe of the supervised
# one; not a row of the paper's table. For other sizes, change arch, and write small,
# base or large in the name of the weights.
_base_ = './upernet_convnext_t_ade20k.py'

# The same weights with the names of Meta or of transformers load as well.
weights = 'timm://convnext_tiny.dinov3_lvd1689m'
model = dict(
    data_preprocessor=dict(  # ImageNet's, with which DINOv3 was trained
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(init_cfg=dict(checkpoint=weights)))
