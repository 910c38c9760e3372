"""The ConvNeXt backbone.

archs          depths and channels of each architecture, by name
layer_norm     LayerNorm over the channels of a feature map
block          one block, as readable mathematics
convnext       the backbone
output_stride  stages that are dilated instead of halving the resolution
fused          the same mathematics, faster and with less memory
"""
