"""The Triton kernels. ``forward.py`` and ``backward.py`` put them into programs.

A row is a pixel of a channels_last map, so the map is a matrix (M, C) with M = N H W.
Every sum over rows consists of partial sums that ``sums.reduce_parts`` adds in a fixed
order. There are no atomic operations: the same input gives the same bits.

A kernel has no list to be entered in. Whatever a program launches is compiled, checked
against ``reference`` on its first use (``proof``), run by Triton's interpreter in
``tests/models/gpu/interpreted_stages.py`` and compiled for other GPUs in
``test_stage_binaries.py``. So a new kernel takes three files: the kernel here, its
launch (``Program.triton``) in ``forward.py`` or ``backward.py``, and a test.

Common to all kernels:

- "work" is ``Types.work`` (bf16, fp16 or fp32), "stream" the type of the residual
  stream (work or fp32), "param" the type of the parameters. Sums are in fp32.
- Constants: C channels; CP, C rounded up to a power of two; RB or BM rows, CB or BH
  columns of a tile; EPS of the norm. DROP, ADD, COPY, BIAS and GRN are 0 or 1.
- If a flag is 0, the pointers that belong to it are not read and may be anything.
- ``drop`` are drop path factors, (N,) in fp32; PIX is the number of pixels of an image,
  so row r has the factor drop[r // PIX].
- ``splits`` programs share the rows: program s takes tiles s, s + splits, ...
"""
