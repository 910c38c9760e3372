# UPerNet with ConvNeXt-atto and narrow heads on the built-in data set. It trains from
# scratch in two minutes on two CPU cores.
_base_ = [
    '../_base_/models/upernet_convnext.py',
    '../_base_/datasets/shapes_segmentation.py', '../_base_/seg_runtime.py'
]

model = dict(
    data_preprocessor=dict(size=(160, 160)),
    backbone=dict(arch='atto', drop_path_rate=0.),
    decode_head=dict(
        in_channels=[40, 80, 160, 320],
        channels=64,
        num_classes=6,
        norm_cfg=dict(type='BN')),
    auxiliary_head=dict(
        in_channels=160, channels=64, num_classes=6,
        norm_cfg=dict(type='BN')),
    test_cfg=dict(_delete_=True, mode='whole'))

max_iters = 400
train_cfg = dict(
    type='IterBasedTrainLoop', max_iters=max_iters, val_interval=200)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.003, weight_decay=0.05),
    clip_grad=dict(max_norm=10))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=25),
    dict(
        type='PolyLR',
        power=1.0,
        eta_min=0.0,
        begin=25,
        end=max_iters,
        by_epoch=False)
]
randomness = dict(seed=0)
auto_scale_lr = dict(enable=False, base_batch_size=4)
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=200, max_keep_ckpts=1))
