_base_ = './cascade_mask_rcnn_convnext_l_in22k_coco.py'

weights = 'https://dl.fbaipublicfiles.com/convnext/convnext_xlarge_22k_224.pth'
model = dict(
    backbone=dict(
        arch='xlarge', drop_path_rate=0.8, init_cfg=dict(checkpoint=weights)),
    neck=dict(in_channels=[256, 512, 1024, 2048]))
