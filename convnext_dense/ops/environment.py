"""What the toolboxes' environment report says of the compiler."""


def get_compiler_version() -> str:
    """What the toolboxes' environment report says of the compiler."""
    return "none (stand-ins of convnext_dense)"


def get_compiling_cuda_version() -> str:
    """What the toolboxes' environment report says of CUDA."""
    return "none (stand-ins of convnext_dense)"
