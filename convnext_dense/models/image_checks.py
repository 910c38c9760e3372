"""Checks of the images that a backbone is given."""

from typing import Any

import torch
from torch import Tensor, nn

from convnext_dense.errors import InputError

from .tracing import RECENT, is_symbolic

MIN_SIZE = 32  # the deepest map has stride 32
# Autocast casts tensors of these types, images and weights alike.
_AUTOCAST = torch.float32, torch.bfloat16, torch.float16


def check_images(images: Tensor, stem: Any, backbone: str) -> None:
    """Check the type, shape and number type of a batch of images.

    It reads no values, so it waits for no device. Nothing is checked while the model is
    traced by ``torch.fx`` or ``torch.jit``.

    Args:
        images: (N, C, H, W).
        stem: the backbone's first convolution. A module of another type takes images of
            any channels and number type.
        backbone: the backbone's name, for the message.

    Raises:
        InputError: (a ValueError) ``images`` is no tensor or has not four dimensions;
            it has other channels or another number type than the weights of ``stem``;
            or H or W is less than 32.
    """
    if is_symbolic(images) or torch.jit.is_tracing():
        return
    if not isinstance(images, Tensor):
        raise InputError(
            f"{backbone} takes a batch of images as a tensor (N, C, H, W), not as "
            f"{type(images).__name__}: call torch.stack(images) on a list of tensors, "
            "torch.from_numpy(images) on an array"
        )
    if images.dim() != 4:
        advice = "; add the first with images[None]" if images.dim() == 3 else ""
        raise InputError(
            f"images of shape {tuple(images.shape)}: {backbone} takes four dimensions, "
            f"(N, C, H, W){advice}"
        )
    if isinstance(stem, nn.Conv2d):
        _check_channels(images, stem.in_channels, backbone)
        # Not stem.weight, which is computed again if it is parametrized.
        weight = stem._parameters.get("weight")
        if weight is not None and images.dtype != weight.dtype:
            _check_number_type(images, weight.dtype, backbone)
    check_size(images, backbone)


def check_size(image: Tensor, backbone: str) -> None:
    """Check that every stage's map of an image has at least one pixel.

    Args:
        image: (..., H, W).
        backbone: the backbone's name, for the message.

    Raises:
        InputError: (a ValueError) H or W is less than 32.
    """
    height, width = image.shape[-2:]
    if min(height, width) < MIN_SIZE:
        raise InputError(
            f"an image of {height} x {width} pixels (height x width) is too small for "
            f"{backbone}: both sides need at least {MIN_SIZE}; resize or pad it"
        )


def _check_channels(images: Tensor, channels: int, backbone: str) -> None:
    """Check that images (N, C, H, W) have as many channels as the weights."""
    if images.shape[1] == channels:
        return
    advice = f"build it with in_channels={images.shape[1]}"
    if images.shape[3] == channels:
        advice = "if the channels are last, call images.permute(0, 3, 1, 2)"
    raise InputError(
        f"images of shape {tuple(images.shape)}, (N, C, H, W): this {backbone} takes "
        f"{channels} channels, not {images.shape[1]}; {advice}"
    )


def _check_number_type(images: Tensor, expected: torch.dtype, backbone: str) -> None:
    """Check that images of another number type than the weights can be computed with.

    That is so under autocast.
    """
    if not images.is_floating_point():
        raise InputError(
            f"images are {images.dtype}, and {backbone} takes normalised floats: give "
            f"(images.to({expected}) - mean) / std, as data_preprocessor does in mmdet "
            "and mmseg"
        )
    castable = images.dtype in _AUTOCAST and expected in _AUTOCAST
    if castable and _has_autocast(images):
        return
    raise InputError(
        f"images are {images.dtype} and the weights of {backbone} are {expected}: call "
        f"images.to({expected}) or backbone.to({images.dtype})"
        + (", or use torch.autocast" if castable else "")
    )


def _has_autocast(images: Tensor) -> bool:
    """Whether autocast casts these images.

    An older PyTorch cannot be asked; its convolution has an error of its own.
    """
    if not RECENT:
        return True
    device = images.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
