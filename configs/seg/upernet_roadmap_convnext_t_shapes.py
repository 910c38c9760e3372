# The end of the roadmap. --cfg-options model.backbone.step=NAME selects any other
# step from inverted_bottleneck on.
_base_ = './upernet_roadmap_resnet50_shapes.py'

model = dict(
    backbone=dict(step='separate_downsampling'),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384))
