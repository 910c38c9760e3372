"""Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159, equation 3).

For query q and head m, with V the value maps of L levels, A the attention weights, p
the sampling locations and K points in each level:

    out_qm = sum over l = 1 .. L and k = 1 .. K of A_mqlk V_ml(p_mqlk)

V_ml(p) is bilinear between the centres of cells; cells outside of the map are 0. Cell
(x, y) of a map of H x W has its centre at ((x + 0.5) / W, (y + 0.5) / H).

Shapes, for N images, M heads, Q queries and D channels of a head:

- value (N, S, M, D): the cells of all levels, one level after the other, row by row
- spatial_shapes (L, 2), int64: height and width of each level
- level_start_index (L,), int64: the first cell of each level
- sampling_loc (N, Q, M, L, K, 2): x, y, in the unit of the map's width and height
- attn_weight (N, Q, M, L, K)
- output (N, Q, M D)

``operators.py`` has the two ops and chooses: ``launches.py`` runs the Triton kernels of
``kernels.py`` on a GPU, ``plain.py`` is PyTorch for everything else. ``function.py``
makes one differentiable function of the two.
"""

from .function import MultiScaleDeformableAttnFunction, attend
from .operators import ms_deform_attn_backward, ms_deform_attn_forward

__all__ = [
    "MultiScaleDeformableAttnFunction",
    "attend",
    "ms_deform_attn_backward",
    "ms_deform_attn_forward",
]
