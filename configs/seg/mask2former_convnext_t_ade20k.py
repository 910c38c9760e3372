# Mask2Former with ConvNeXt-T. The recipe is that of the paper (arXiv 2112.01527) for
# Swin-T at 512 x 512, as mmseg has it; no number is published for ConvNeXt-T.
_base_ = [
    '../_base_/datasets/ade20k.py', '../_base_/schedules/mask2former_160k.py',
    '../_base_/seg_runtime.py', '../_base_/models/mask2former_semantic_convnext.py'
]
# mmseg's head takes layers of mmdet, which need the stand-ins of convnext_dense.
custom_imports = dict(imports=['convnext_dense', 'mmdet.models'])

weights = 'https://dl.fbaipublicfiles.com/convnext/convnext_tiny_1k_224.pth'
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights)))

train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(  # the short side is 0.5 to 2 times the crop's
    type='RandomChoiceResize',
    scales=[int(512 * x * 0.1) for x in range(5, 21)],
    resize_type='ResizeShortestEdge',
    max_size=2048)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
default_hooks = dict(checkpoint=dict(interval=5000))
