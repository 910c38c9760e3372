"""This backbone beside every other ConvNeXt that is installed.

peers       each library's ConvNeXt with the weights of ours, and whether they agree
steps       inference and training steps, eager, compiled or as CUDA graphs
clock       wall, host and kernel time of several steps, in turn
memory      bytes kept, at the peak and held
measuring   all of these figures for several steps
backbones   inference and training of the backbones: what is measured, row by row
floor       the matrix products of a step alone
models      whole training steps of a config, with our backbone and with timm's
made_up     the targets that they learn
host        the host's part of a step alone
rows        a line of the table
report      the rows as a table and as JSON
picture     the rows as a picture
machine     which machine and versions they are from
"""
