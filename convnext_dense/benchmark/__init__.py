"""This backbone beside every other ConvNeXt that is installed.

peers       each library's ConvNeXt with the weights of ours, and whether they agree
clock       time and memory of several candidates, in turn
backbones   inference and training of the backbones: what is measured, row by row
models      whole training steps of a config, with our backbone and with timm's
report      the rows as a table, as JSON and as a picture
machine     which machine and versions they are from
"""
