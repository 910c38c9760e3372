# As mask2former_convnext_b_in22k_coco_panoptic.py, on DINOv3's distilled ConvNeXt-B
# (arXiv 2508.10104). No recipe is published.
_base_ = './mask2former_convnext_b_in22k_coco_panoptic.py'

# The same weights with the names of Meta or of transformers load as well.
weights = 'timm://convnext_base.dinov3_lvd1689m'
model = dict(backbone=dict(init_cfg=dict(checkpoint=weights)))
