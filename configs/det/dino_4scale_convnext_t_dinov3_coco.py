# DINO-4scale on DINOv3's distilled ConvNeXt-T (arXiv 2508.10104), fine-tuned. No recipe
# is published: this is the one of dino_4scale_convnext_t_coco.py.
_base_ = './dino_4scale_convnext_t_coco.py'

# The same weights with the names of Meta or of transformers load as well.
weights = 'timm://convnext_tiny.dinov3_lvd1689m'
model = dict(backbone=dict(init_cfg=dict(checkpoint=weights)))
