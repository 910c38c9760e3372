"""Checks that necks and heads expect the channels of the backbone's feature maps."""

from collections.abc import Sequence
from typing import NoReturn

from torch import nn

from convnext_dense.errors import InputError


def check_channels(model: nn.Module) -> None:
    """Compare ``in_channels`` of a model's neck or heads with its backbone's channels.

    Models whose backbone has no ``feature_info``, as this package's have, are not
    checked.

    Raises:
        InputError: a neck or head expects other channels.
    """
    info = getattr(getattr(model, "backbone", None), "feature_info", None)
    if not info:
        return
    channels = [level.channels for level in info]
    neck = getattr(model, "neck", None)
    if neck is not None:
        expected = getattr(neck, "in_channels", None)
        if isinstance(expected, list | tuple) and list(expected) != channels:
            _refuse("neck", expected, channels)
        return
    for name in ("decode_head", "auxiliary_head"):
        head = getattr(model, name, None)
        index = getattr(head, "in_index", None)
        expected = getattr(head, "in_channels", None)
        if isinstance(index, int) and isinstance(expected, int):
            index, expected = [index], [expected]
        if isinstance(index, list | tuple) and isinstance(expected, list | tuple):
            selected = [channels[i] for i in index if i < len(channels)]
            if list(expected) != selected:
                _refuse(name, expected, selected)


def _refuse(name: str, expected: Sequence[int], channels: list[int]) -> NoReturn:
    raise InputError(
        f"model.{name}.in_channels is {list(expected)}, but the backbone's "
        f"feature maps have {channels} channels: set it to {channels}"
    )
