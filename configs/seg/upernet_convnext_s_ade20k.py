_base_ = './upernet_convnext_t_ade20k.py'

weights = 'https://dl.fbaipublicfiles.com/convnext/convnext_small_1k_224.pth'
model = dict(
    backbone=dict(
        arch='small', drop_path_rate=0.3, init_cfg=dict(checkpoint=weights)))

optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
