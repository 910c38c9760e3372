# 100 epochs, 4 GPUs x 32 images, AdamW with layer-wise learning-rate decay, averaged
# weights, and simpler augmentation in the last ten epochs.
max_epochs = 100
base_lr = 0.001
train_cfg = dict(
    type='EpochBasedTrainLoop',
    max_epochs=max_epochs,
    val_interval=10,
    dynamic_intervals=[(max_epochs - 10, 1)])
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=base_lr, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        decay_type='layer_wise',
        decay_rate=0.8,
        num_layers=12,
        bypass_duplicate=True))  # the head shares its convolutions across levels

param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1.0e-5,
        by_epoch=False,
        begin=0,
        end=1000),
    dict(  # from the middle on
        type='CosineAnnealingLR',
        eta_min=base_lr * 0.05,
        begin=max_epochs // 2,
        end=max_epochs,
        T_max=max_epochs // 2,
        by_epoch=True,
        convert_to_iter_based=True)
]

auto_scale_lr = dict(enable=False, base_batch_size=128)
