# ConvNeXt V2-T with the recipe of V1-T; not a row of the paper's table.
_base_ = './upernet_convnext_t_ade20k.py'

weights = ('https://dl.fbaipublicfiles.com/convnext/convnextv2/im1k/'
           'convnextv2_tiny_1k_224_ema.pt')
model = dict(
    backbone=dict(
        use_grn=True,
        layer_scale_init_value=0.,
        init_cfg=dict(checkpoint=weights)))
