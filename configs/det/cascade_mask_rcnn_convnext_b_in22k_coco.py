_base_ = './cascade_mask_rcnn_convnext_b_coco.py'

weights = 'https://dl.fbaipublicfiles.com/convnext/convnext_base_22k_224.pth'
model = dict(
    backbone=dict(drop_path_rate=0.6, init_cfg=dict(checkpoint=weights)))

optim_wrapper = dict(optimizer=dict(lr=0.0001))
