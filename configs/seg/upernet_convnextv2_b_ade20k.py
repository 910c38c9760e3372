# As upernet_convnextv2_t_ade20k.py, with V2-B and V1-B's recipe: 52.1 mIoU with --tta
# (arXiv 2301.00808, table 7).
_base_ = './upernet_convnext_b_ade20k.py'

weights = ('https://dl.fbaipublicfiles.com/convnext/convnextv2/im1k/'
           'convnextv2_base_1k_224_ema.pt')
model = dict(
    backbone=dict(
        use_grn=True,
        layer_scale_init_value=0.,
        init_cfg=dict(checkpoint=weights)))

# The paper's scales (appendix A.4), with flip as in V1's test.
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1].transforms[0] = [
    dict(
        type='Resize',
        scale=(int(2048 * ratio), int(512 * ratio)),
        keep_ratio=True) for ratio in (0.75, 0.875, 1.0, 1.125, 1.25)
]
