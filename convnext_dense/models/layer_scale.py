"""Layer scale in state dicts: of its own, or folded into the second pointwise layer.

A backbone after ``optimize_for_inference()`` has no layer scale, and its state dict has
none. A state dict of either form is changed into the other here, so that the maps are
the same.
"""

from collections.abc import MutableMapping, Sequence

from mmengine.logging import print_log
from torch import Tensor


def fold(state_dict: MutableMapping[str, Tensor], blocks: Sequence[str]) -> None:
    """Multiply each ``gamma`` into the second pointwise layer, and remove it.

    Args:
        state_dict: of a backbone; it is changed.
        blocks: the prefixes of the blocks' names.
    """
    folded = False
    for block in blocks:
        weight, bias, gamma = _names(block)
        if {weight, bias, gamma} <= state_dict.keys():
            factor = state_dict.pop(gamma)
            state_dict[weight] = state_dict[weight] * factor[:, None]
            state_dict[bias] = state_dict[bias] * factor
            folded = True
    if folded:
        print_log(
            "ConvNeXt is optimized for inference: layer scale of the loaded weights is "
            "folded into the second pointwise layers",
            "current",
        )


def add_ones(state_dict: MutableMapping[str, Tensor], blocks: Sequence[str]) -> None:
    """Add a ``gamma`` of ones to every block if no block has one.

    Args:
        state_dict: of a backbone; it is changed.
        blocks: the prefixes of the blocks' names.
    """
    names = [_names(block) for block in blocks]
    has_gamma = any(gamma in state_dict for _, _, gamma in names)
    is_whole = all({weight, bias} <= state_dict.keys() for weight, bias, _ in names)
    if has_gamma or not is_whole:
        return
    for _, bias, gamma in names:
        state_dict[gamma] = state_dict[bias].new_ones(state_dict[bias].shape)
    print_log(
        "the loaded weights of ConvNeXt have no layer scale, as after "
        "optimize_for_inference(): gamma is set to 1, which gives the same maps",
        "current",
    )


def _names(block: str) -> tuple[str, str, str]:
    """The names of a block's second pointwise weight and bias, and of its ``gamma``."""
    return f"{block}pwconv2.weight", f"{block}pwconv2.bias", f"{block}gamma"
