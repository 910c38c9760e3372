# As mask2former_50e.py, but 160k iterations with a learning rate that falls to 0, as in
# Mask2Former's paper for ADE20K (arXiv 2112.01527, section 4.1) and mmseg's
# mask2former_r50.
_base_ = './mask2former_50e.py'

max_iters = 160000
train_cfg = dict(
    _delete_=True,
    type='IterBasedTrainLoop',
    max_iters=max_iters,
    val_interval=5000)
param_scheduler = [
    dict(
        type='PolyLR',
        eta_min=0,
        power=0.9,
        begin=0,
        end=max_iters,
        by_epoch=False)
]
