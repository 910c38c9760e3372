# A linear layer on DINOv3's features (arXiv 2508.10104): 42.7 mIoU (model card of
# DINOv3's weights). The backbone of upernet_convnext_t_dinov3_ade20k is frozen; a
# linear layer on its last map is trained with DINOv3's own schedule
# (dinov3/eval/segmentation, linear training). There, a frozen layer norm and then a
# batch norm normalise that map; here the layer norm learns instead.
_base_ = './upernet_convnext_t_dinov3_ade20k.py'

model = dict(
    backbone=dict(frozen_stages=4, drop_path_rate=0., out_indices=(3, )),
    decode_head=dict(
        _delete_=True,
        type='FCNHead',
        num_convs=0,
        concat_input=False,
        in_channels=768,
        channels=768,
        in_index=0,
        dropout_ratio=0.1,
        num_classes=150,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False)),
    auxiliary_head=None)

max_iters = 40000
train_cfg = dict(max_iters=max_iters, val_interval=5000)
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=0.001, betas=(0.9, 0.999), weight_decay=0.001))
param_scheduler = [
    dict(
        type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.,
        by_epoch=False,
        begin=1500,
        end=max_iters,
        T_max=max_iters - 1500)
]
default_hooks = dict(checkpoint=dict(interval=5000))
