"""Kernels in Triton and CUDA C++."""
