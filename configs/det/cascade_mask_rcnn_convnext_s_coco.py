_base_ = './cascade_mask_rcnn_convnext_t_coco.py'

weights = 'https://dl.fbaipublicfiles.com/convnext/convnext_small_1k_224.pth'
model = dict(
    backbone=dict(
        arch='small', drop_path_rate=0.6, init_cfg=dict(checkpoint=weights)))

optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
