# Mask R-CNN with ConvNeXt V2-B from FCMAE, without fine-tuning on ImageNet, by mmdet's
# recipe (projects/ConvNeXt-V2, mask-rcnn_convnext-v2-b_fpn_lsj-3x-fcmae): 52.9 box,
# 46.4 mask AP. The V2 paper's own recipe is not published.
_base_ = './mask_rcnn_convnextv2_t_coco.py'

weights = ('https://dl.fbaipublicfiles.com/convnext/convnextv2/pt_only/'
           'convnextv2_base_1k_224_fcmae.pt')
model = dict(
    backbone=dict(arch='base', init_cfg=dict(checkpoint=weights)),
    neck=dict(in_channels=[128, 256, 512, 1024]),
    test_cfg=dict(rcnn=dict(nms=dict(type='soft_nms'))))

image_size = (1024, 1024)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='RandomResize',
        scale=image_size,
        ratio_range=(0.1, 2.0),
        keep_ratio=True),
    dict(
        type='RandomCrop',
        crop_type='absolute_range',
        crop_size=image_size,
        recompute_bbox=True,
        allow_negative_crop=True),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]
train_dataloader = dict(
    batch_size=4, num_workers=8, dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 1000  # the warm-up
auto_scale_lr = dict(base_batch_size=32)
