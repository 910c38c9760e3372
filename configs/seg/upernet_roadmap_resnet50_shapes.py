# ResNet-50, the start of the roadmap (convnext_dense/projects/roadmap.py), on the
# built-in data set. --cfg-options model.backbone.step=NAME selects stage_ratio,
# patchify_stem or depthwise_conv. upernet_roadmap_convnext_t_shapes.py is for the
# steps with inverted bottlenecks.
_base_ = './upernet_convnext_atto_shapes.py'

model = dict(
    backbone=dict(
        _delete_=True, type='ModernizedResNet', step='resnet50'),
    decode_head=dict(in_channels=[256, 512, 1024, 2048]),
    auxiliary_head=dict(in_channels=1024))

optim_wrapper = dict(optimizer=dict(lr=0.001))
