# ConvNeXt V2-T with V1-T's recipe, which the authors of V2 used too
# (github.com/facebookresearch/ConvNeXt-V2, issue 8). No number is published for T.
_base_ = './upernet_convnext_t_ade20k.py'

weights = ('https://dl.fbaipublicfiles.com/convnext/convnextv2/im1k/'
           'convnextv2_tiny_1k_224_ema.pt')
model = dict(
    backbone=dict(
        use_grn=True,
        layer_scale_init_value=0.,
        init_cfg=dict(checkpoint=weights)))
