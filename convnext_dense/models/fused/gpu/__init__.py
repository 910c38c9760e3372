"""ConvNeXt's stages on a GPU, computed by this package's own kernels.

A backbone has four stages. ``dispatch.run_stage`` computes one of them. A call goes
through these modules, in this order:

    dispatch          Entry point: computes a stage with kernels, or returns None.
    modules           Reads a stage's modules: its spec, number types and parameters.
    best_stage        Returns the ``Stage`` for an input.
    ways              Chooses tensor-core kernels, Triton kernels or plain PyTorch.
    plan              Lists the kernels and tile sizes that fit the device.
    proof, reference  Compare the kernels with plain PyTorch on a small input.
    timing            Times the kernels against plain PyTorch; ``disk_cache`` stores it.
    autograd          One autograd function for a whole stage.
    stage             Builds and caches one ``Program`` per input shape, and runs it.
    native_run        Runs a program with the CUDA driver and cuBLAS (``native``).
    plain_run         Runs a program with Triton's launcher and PyTorch instead.

A ``program.Program`` is the list of launches for one input shape: Triton kernels
(``kernels/``), CUDA C++ kernels (``cuda/``) and cuBLAS products. Their arguments are
offsets from the addresses of a few tensors. These modules write programs:

    description       Names what a program depends on: spec, types, shape, needs.
    places            Says where parameters, gradients and kept maps lie.
    forward           Writes the forward pass.
    backward          Writes the backward pass; ``hidden_backward`` its two products.
    depthwise         Writes the launches of the depthwise convolution.

``compiled`` turns launches into loaded GPU functions: by Triton, or by ``nvrtc`` with
the variants of ``depthwise_cuda``. ``device`` holds a GPU's limits.

The forward pass folds the parameters, then computes the entrance (stem or downsample
layer), the blocks (depthwise convolution, norm, product, GELU, product) and the norm of
the output map. It keeps only the input of each block; the backward pass computes the
rest again. No PyTorch operator runs for a block: on a slow host, Python's part took
twice as long as the kernels.

Four modules stand beside this path: ``compile_op`` makes a stage one operator for
``torch.compile``, ``graphs`` replays stages as CUDA graphs, ``host_time`` and
``report`` measure and describe the GPU path for the commands.
"""
