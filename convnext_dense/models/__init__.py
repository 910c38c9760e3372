"""The ConvNeXt backbone.

archs          depths and channels of each architecture, by name
layer_norm     LayerNorm over the channels of a feature map
drop_path      leaves the branch of some samples out
block          one block, as readable mathematics
convnext       the backbone
image_checks   what is wrong with the images of a forward pass
output_stride  stages that are dilated instead of halving the resolution
layer_scale    state dicts with and without layer scale
tracing        whether PyTorch records or transforms the model
fused          the same mathematics, faster and with less memory
"""
