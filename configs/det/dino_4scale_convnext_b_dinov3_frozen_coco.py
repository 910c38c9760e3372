# As dino_4scale_convnext_b_dinov3_coco.py, with a frozen backbone: only the norms of
# its feature maps, the neck and the transformer train. No recipe is published.
_base_ = './dino_4scale_convnext_b_dinov3_coco.py'

model = dict(backbone=dict(frozen_stages=4))
