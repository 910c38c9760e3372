# As mask2former_convnext_t_ade20k.py, with ConvNeXt-B at 640 x 640, as the paper trains
# Swin-B from ImageNet-22K. No number is published for ConvNeXt-B.
_base_ = [
    '../_base_/datasets/ade20k_640.py',
    '../_base_/schedules/mask2former_160k.py', '../_base_/seg_runtime.py',
    '../_base_/models/mask2former_semantic_convnext.py'
]
# mmseg's head takes layers of mmdet, which need the stand-ins of convnext_dense.
custom_imports = dict(imports=['convnext_dense', 'mmdet.models'])

weights = 'https://dl.fbaipublicfiles.com/convnext/convnext_base_22k_224.pth'
model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(
        arch='base', init_cfg=dict(type='Pretrained', checkpoint=weights)),
    decode_head=dict(in_channels=[128, 256, 512, 1024]))

train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(  # the short side is 0.5 to 2 times the crop's
    type='RandomChoiceResize',
    scales=[int(640 * x * 0.1) for x in range(5, 21)],
    resize_type='ResizeShortestEdge',
    max_size=2560)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
default_hooks = dict(checkpoint=dict(interval=5000))
