"""Moved to ``convnext_dense.models.block``; this path stays for existing code."""

from .models.block import Block
from .models.layer_norm import LayerNorm2d

__all__ = ["Block", "LayerNorm2d"]
