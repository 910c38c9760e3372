"""The ConvNeXt backbone.

archs     depths and channels by name
block     one block, as readable mathematics
convnext  the backbone
fused     the same mathematics, faster and with less memory
"""
