"""Count what autograd keeps of a forward pass."""

import torch


def kept_bytes(model, x, function=None):
    """Bytes of the storages kept for the backward pass, without parameters.

    Args:
        model: the module whose parameters do not count.
        x: the input.
        function: is called with ``x``; None is ``model`` itself.
    """
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = (function or model)(x)
    del out
    return sum(kept.values())
