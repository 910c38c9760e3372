"""Triton kernels, a family a file. ``program.py`` launches them.

Rows are the pixels of a channels_last map: (M, C), M = N H W. Every sum over rows is
made of partial sums that ``sums.reduce_parts`` adds in a fixed order: no atomics, so
the same input gives the same bits.
"""
