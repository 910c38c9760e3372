"""Moved to ``convnext_dense.datasets.custom``; this path stays for old configs."""
