# DeepLabV3+ with a ConvNeXt-T backbone of output stride 8. The rest is that of Semantic
# FPN beside it. Lines marked with <- put the backbone in.
_base_ = './mmseg_semantic_fpn_convnext_t_ade20k.py'

model = dict(
    backbone=dict(output_stride=8),  # <- maps at strides 4, 8, 8, 8
    neck=None,
    decode_head=dict(
        _delete_=True,
        type='DepthwiseSeparableASPPHead',
        in_channels=768,  # <-
        in_index=3,
        c1_in_channels=96,  # <-
        c1_channels=48,
        channels=512,
        dilations=(1, 12, 24, 36),
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=_base_.norm_cfg,
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)))
