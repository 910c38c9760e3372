# RTMDet-l with ConvNeXt-B by mmdet's recipe (configs/rtmdet,
# rtmdet_l_convnext_b_4xb32-100e_coco): 53.1 box AP. The weights are pre-trained on
# ImageNet-22K and fine-tuned on ImageNet-1K at 384 x 384.
_base_ = [
    '../_base_/models/rtmdet_l_convnext.py',
    '../_base_/datasets/coco_rtmdet.py', '../_base_/schedules/rtmdet_100e.py',
    '../_base_/det_runtime.py'
]

weights = ('https://dl.fbaipublicfiles.com/convnext/'
           'convnext_base_22k_1k_384.pth')
model = dict(
    backbone=dict(
        with_cp=True,  # a GPU takes 32 images
        init_cfg=dict(type='Pretrained', checkpoint=weights)))

default_hooks = dict(checkpoint=dict(interval=10))
custom_hooks = [
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=0.0002,
        update_buffers=True,
        priority=49),
    dict(
        type='PipelineSwitchHook',
        switch_epoch=90,
        switch_pipeline=_base_.train_pipeline_stage2)
]
