"""ConvNeXt's stages on a GPU: a third of the time and an eighth of the memory.

A backbone has four stages. These functions compute each, the outermost first:

    modules.run_stage       Can kernels replace these modules? In which types?
    ways.choose             Tensor cores, Triton or plain PyTorch: what the device can
                            do, what gives the right numbers, what is fastest.
    autograd.apply_stage    One autograd function for the whole stage.
    stage.Stage             Finds the program for the input's shape.
    native_run.NativeRun    Fills in the arguments, launches the kernels in order.

The forward pass (``forward.py``) folds the parameters, computes the entrance (stem or
downsampling), the blocks (depthwise convolution, norm, product, GELU, product) and the
norm of the output map. Of each block only the input is kept: the backward pass
(``backward.py``) computes the rest again.

A program (``program.Program``) is written once for each shape. It is a list of
launches: Triton kernels (``kernels/``), CUDA C++ kernels (``cuda/``) and cuBLAS
products. Their arguments are offsets from a few addresses. No PyTorch operator runs for
a block: on a slow host, Python took twice as long as the kernels.

``compile_op`` makes a stage one operator for ``torch.compile``. ``graphs`` replays
stages as CUDA graphs. ``host_time`` measures the host's time alone.
"""
