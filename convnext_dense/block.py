"""Moved to ``convnext_dense.models.block``; this path stays for existing code."""

from .models.archs import NORM_EPS
from .models.block import GRN, Block
from .models.layer_norm import LayerNorm2d

__all__ = ["GRN", "NORM_EPS", "Block", "LayerNorm2d"]
