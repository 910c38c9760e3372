"""A backbone or a segmentor as a file that runs without this package.

networks  config and checkpoint -> what is exported, and PyTorch's answer to compare
pooling   adaptive pooling for sizes that are not known yet
writing   to ONNX or torch.export, whole or not at all, checked by running the file
"""
