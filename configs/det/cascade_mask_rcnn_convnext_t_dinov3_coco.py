# DINOv3's distilled ConvNeXt-T (arXiv 2508.10104), trained with the recipe of the
# supervised ConvNeXt-T; the paper's table has no such row. For other sizes, set arch,
# and write small, base or large in the name of the weights.
_base_ = './cascade_mask_rcnn_convnext_t_coco.py'

# Files of the same weights with Meta's or transformers' names load as well.
weights = 'timm://convnext_tiny.dinov3_lvd1689m'
model = dict(
    data_preprocessor=dict(  # ImageNet's, as DINOv3 was trained with
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(init_cfg=dict(checkpoint=weights)))
