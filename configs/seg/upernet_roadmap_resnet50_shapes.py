# ResNet-50, the first step of the roadmap (convnext_dense/projects/roadmap.py), on the
# built-in data set. --cfg-options model.backbone.step=NAME selects stage_ratio,
# patchify_stem or depthwise_conv. The steps with inverted bottlenecks are in
# upernet_roadmap_convnext_t_shapes.py.
_base_ = './upernet_convnext_atto_shapes.py'

model = dict(
    backbone=dict(
        _delete_=True, type='ModernizedResNet', step='resnet50'),
    decode_head=dict(in_channels=[256, 512, 1024, 2048]),
    auxiliary_head=dict(in_channels=1024))

optim_wrapper = dict(optimizer=dict(lr=0.001))
