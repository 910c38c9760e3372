# As upernet_convnextv2_b_ade20k.py, with V2-L: 53.7 mIoU with --tta (arXiv 2301.00808,
# table 7).
_base_ = './upernet_convnextv2_b_ade20k.py'

weights = ('https://dl.fbaipublicfiles.com/convnext/convnextv2/im1k/'
           'convnextv2_large_1k_224_ema.pt')
model = dict(
    backbone=dict(arch='large', init_cfg=dict(checkpoint=weights)),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768))
