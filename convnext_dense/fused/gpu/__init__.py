"""ConvNeXt blocks on NVIDIA GPUs."""
