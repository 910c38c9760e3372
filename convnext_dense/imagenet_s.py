"""Moved to ``convnext_dense.projects.imagenet_s``; this path stays for old configs."""

from .projects.imagenet_s import *  # noqa: F403
