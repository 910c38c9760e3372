# 12 epochs, 8 GPUs x 2 images, AdamW. The backbone trains at a tenth of the learning
# rate. As in detrex, norms outside the backbone have no weight decay.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=0.0001, betas=(0.9, 0.999), weight_decay=0.0001),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    # No layer decay, but one parameter group for all parameters with equal options:
    # mmengine's own constructor makes hundreds, which AdamW updates one by one.
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        decay_rate=1.,
        custom_keys={'backbone': dict(lr_mult=0.1, decay_mult=1.)},
        bias_decay_mult=1.,
        flat_decay_mult=1.))

param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=12,
        by_epoch=True,
        milestones=[11],
        gamma=0.1)
]

auto_scale_lr = dict(enable=False, base_batch_size=16)
