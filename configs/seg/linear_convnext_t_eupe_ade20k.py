# A linear layer on EUPE's features: 43.5 mIoU (arXiv 2603.22387, table 6), with EUPE's
# own schedule (github.com/facebookresearch/EUPE, eupe/eval/segmentation/configs,
# config-ade20k-linear-training), which is DINOv3's.
_base_ = './linear_convnext_t_dinov3_ade20k.py'

# The same weights with the names of Meta load as well.
weights = 'timm://convnext_tiny.eupe_lvd1689m'
model = dict(backbone=dict(init_cfg=dict(checkpoint=weights)))
