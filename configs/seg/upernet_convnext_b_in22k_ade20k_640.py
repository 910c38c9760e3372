_base_ = [
    '../_base_/models/upernet_convnext.py', '../_base_/datasets/ade20k_640.py',
    '../_base_/schedules/seg_160k.py', '../_base_/seg_runtime.py'
]

weights = 'https://dl.fbaipublicfiles.com/convnext/convnext_base_22k_224.pth'
model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(
        arch='base', init_cfg=dict(type='Pretrained', checkpoint=weights)),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
    test_cfg=dict(crop_size=(640, 640), stride=(426, 426)))

optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
