_base_ = [
    '../_base_/models/mask_rcnn_convnext.py',
    '../_base_/datasets/coco_instance.py', '../_base_/schedules/det_3x.py',
    '../_base_/det_runtime.py'
]

weights = 'https://dl.fbaipublicfiles.com/convnext/convnext_tiny_1k_224.pth'
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights)))

optim_wrapper = dict(
    optimizer=dict(lr=0.0001), paramwise_cfg=dict(decay_rate=0.95))
