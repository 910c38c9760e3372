# FSDP: each process keeps a shard of the parameters, gradients and optimizer state. A
# block's parameters, once gathered, stay until the end of the backward pass. During an
# evaluation they stay too, because images of different sizes can need different
# numbers of forward passes.
runner_type = 'FlexibleRunner'
strategy = dict(
    type='ConvNeXtFSDPStrategy',
    model_wrapper=dict(
        auto_wrap_policy='each_block', sharding_strategy='SHARD_GRAD_OP'),
    state_dict_cfg='full')
