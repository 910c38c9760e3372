# Each process keeps a part of the parameters, gradients and optimizer state. The
# blocks' parameters, once gathered, stay until the backward pass is over, and during
# an evaluation, where images of other sizes need other numbers of forward passes.
runner_type = 'FlexibleRunner'
strategy = dict(
    type='ConvNeXtFSDPStrategy',
    model_wrapper=dict(
        auto_wrap_policy='each_block', sharding_strategy='SHARD_GRAD_OP'),
    state_dict_cfg='full')
