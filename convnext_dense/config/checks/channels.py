"""Checks that necks and heads take the channels that the backbone gives."""

from torch import nn

from convnext_dense.errors import InputError


def check_channels(model: nn.Module) -> None:
    """Compare ``in_channels`` of a model's neck or heads with its backbone's maps.

    Only backbones with this package's ``feature_info`` are checked.

    Raises:
        InputError: a neck or head expects other channels.
    """
    info = getattr(getattr(model, "backbone", None), "feature_info", None)
    if not info:
        return
    channels = [level.channels for level in info]
    neck = getattr(model, "neck", None)
    if neck is not None:
        wanted = getattr(neck, "in_channels", None)
        if isinstance(wanted, list | tuple) and list(wanted) != channels:
            _refuse("neck", wanted, channels)
        return
    for name in ("decode_head", "auxiliary_head"):
        head = getattr(model, name, None)
        index, wanted = (
            getattr(head, key, None) for key in ("in_index", "in_channels")
        )
        if isinstance(index, int) and isinstance(wanted, int):
            index, wanted = [index], [wanted]
        if isinstance(index, list | tuple) and isinstance(wanted, list | tuple):
            given = [channels[i] for i in index if i < len(channels)]
            if list(wanted) != given:
                _refuse(name, wanted, given)


def _refuse(name: str, wanted, channels: list[int]) -> None:
    raise InputError(
        f"model.{name}.in_channels is {list(wanted)}, but the backbone's "
        f"feature maps have {channels} channels: set it to {channels}"
    )
