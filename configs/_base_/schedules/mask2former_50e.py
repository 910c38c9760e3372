# 368750 iterations (50 epochs), 8 GPUs x 2 images, AdamW, as in Mask2Former's paper
# (section 4.1) and mmdet's mask2former_r50. The backbone trains at a tenth of the
# learning rate. Norms and embeddings have no weight decay.
max_iters = 368750
interval = 5000
train_cfg = dict(
    type='IterBasedTrainLoop',
    max_iters=max_iters,
    val_interval=interval,
    # After the last whole interval, the next validation is at the end.
    dynamic_intervals=[(max_iters // interval * interval + 1, max_iters)])
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

no_decay = dict(decay_mult=0.)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=0.0001, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=0.01, norm_type=2),
    # No layer decay, but one parameter group for all parameters with equal options, and
    # norms without weight decay whatever their learning rate.
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        decay_rate=1.,
        custom_keys={
            'backbone': dict(lr_mult=0.1),
            'query_embed': no_decay,
            'query_feat': no_decay,
            'level_embed': no_decay,
        },
        bias_decay_mult=1.,
        flat_decay_mult=1.))

param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_iters,
        by_epoch=False,
        milestones=[327778, 355092],
        gamma=0.1)
]

auto_scale_lr = dict(enable=False, base_batch_size=16)
