# Semi-supervised semantic segmentation of ImageNet-S: ConvNeXt-T with the P4
# head, fine-tuned on train-semi with 8 GPUs x 32 images. The baseline of
# github.com/LUSSeg/ImageNetSegModel has 48.7 mIoU on validation.
_base_ = [
    '../_base_/datasets/imagenet_s919.py', '../_base_/seg_runtime.py'
]
custom_imports = dict(
    imports=['convnext_dense', 'convnext_dense.projects.imagenet_s'])

weights = ('https://dl.fbaipublicfiles.com/convnext/'
           'convnext_tiny_1k_224_ema.pth')
model = dict(
    type='BoundedEncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=1000,
        size=(224, 224)),
    backbone=dict(
        type='ConvNeXt',
        arch='tiny',
        drop_path_rate=0.2,
        out_indices=(3, ),
        init_cfg=dict(type='Pretrained', checkpoint=weights)),
    decode_head=dict(
        type='PixelShuffleHead',
        patch_size=4,
        in_channels=768,
        in_index=0,
        dropout_ratio=0.,
        num_classes=920,
        ignore_index=1000,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100, val_interval=20)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(
        type='AdamW', lr=2.5e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_type='block_wise', decay_rate=0.6))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-6,
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.004,  # 1e-6 at the head
        by_epoch=True,
        begin=5,
        end=100,
        T_max=95,
        convert_to_iter_based=True)
]
auto_scale_lr = dict(enable=False, base_batch_size=256)

default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=True),
    checkpoint=dict(by_epoch=True, interval=20))
log_processor = dict(by_epoch=True)
