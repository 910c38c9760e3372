"""ConvNeXt's stages on a GPU: a third of the time and an eighth of the memory.

A step's way, of one stage (four a backbone):

    modules.run_stage        may kernels stand for these modules? in which types?
      ways.choose            tensor cores, Triton or plain PyTorch: proved, timed
      autograd.apply_stage   one autograd function for the whole stage
        stage.Stage          the program for this shape; the parameters' addresses
          native_run         arguments filled in, launches one after the other

    forward.py     fold -> entrance -> [depthwise, norm, product, GELU, product] -> norm
    backward.py    the same way back; of a block everything but its input is made again

The program is written down once a shape (``program.Program``): launches of Triton's
kernels (``kernels/``), of CUDA C++ (``cuda/``) and of cuBLAS, whose arguments are
offsets from a few addresses. No PyTorch operator runs per block: on a slow host
Python's share of a step was twice that of the kernels.

``compile_op`` shows a stage to ``torch.compile`` as one operator. ``graphs`` replays
stages as CUDA graphs. ``host_time`` measures the host's part alone.
"""
