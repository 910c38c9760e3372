"""The ConvNeXt backbone.

archs       depths and channels of each architecture, by name
layer_norm  LayerNorm over the channels of a feature map
block       one block, as readable mathematics
convnext    the backbone
fused       the same mathematics, faster and with less memory
"""
