"""The Triton kernels. ``forward.py`` and ``backward.py`` put them into programs.

A row is a pixel of a channels_last map: the map is a matrix (M, C) with M = N H W.
Every sum over rows is made of partial sums that ``sums.reduce_parts`` adds in a fixed
order. There are no atomic operations, so the same input gives the same bits.
"""
