# DINO-4scale with ConvNeXt-L by the recipe of detrex (github.com/IDEA-Research/detrex,
# projects/dino, DINO-ConvNeXt-Large-384-4scale): 55.5 box AP in 12 epochs. The weights
# are pre-trained on ImageNet-22K and fine-tuned on ImageNet-1K at 384 x 384.
_base_ = './dino_4scale_convnext_t_coco.py'

weights = ('https://dl.fbaipublicfiles.com/convnext/'
           'convnext_large_22k_1k_384.pth')
model = dict(
    backbone=dict(arch='large', init_cfg=dict(checkpoint=weights)),
    neck=dict(in_channels=[384, 768, 1536]))
