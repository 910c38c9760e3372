# As upernet_convnextv2_t_ade20k.py, with V2-B and V1-B's recipe.
_base_ = './upernet_convnext_b_ade20k.py'

weights = ('https://dl.fbaipublicfiles.com/convnext/convnextv2/im1k/'
           'convnextv2_base_1k_224_ema.pt')
model = dict(
    backbone=dict(
        use_grn=True,
        layer_scale_init_value=0.,
        init_cfg=dict(checkpoint=weights)))
