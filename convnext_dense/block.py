"""Moved to ``convnext_dense.models.block``; this path stays for existing code."""

from .models.block import Block, LayerNorm2d

__all__ = ["Block", "LayerNorm2d"]
