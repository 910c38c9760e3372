_base_ = './cascade_mask_rcnn_convnext_t_coco.py'

weights = 'https://dl.fbaipublicfiles.com/convnext/convnext_large_22k_224.pth'
model = dict(
    backbone=dict(
        arch='large', drop_path_rate=0.7, init_cfg=dict(checkpoint=weights)),
    neck=dict(in_channels=[192, 384, 768, 1536]))

# Without mixed precision.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(_base_.optim_wrapper.optimizer, lr=0.0001),
    constructor=_base_.optim_wrapper.constructor,
    paramwise_cfg=dict(_base_.optim_wrapper.paramwise_cfg, num_layers=12))
