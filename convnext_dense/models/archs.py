"""The architectures by name: the blocks and channels of each stage.

A new architecture is one more line in ``ARCHS``.
"""

from collections.abc import Mapping
from typing import NamedTuple

from convnext_dense.errors import InputError

NUM_STAGES = 4
NORM_EPS = 1e-6  # of the authors' norms


class Arch(NamedTuple):
    """An architecture.

    Attributes:
        depths: the blocks of each stage.
        channels: the channels of each stage.
        norm_eps: every norm adds it to each variance.
    """

    depths: tuple[int, ...]
    channels: tuple[int, ...]
    norm_eps: float = NORM_EPS


# tiny to xlarge: arXiv 2201.03545, section 3. atto to nano, and huge: arXiv 2301.00808,
# appendix A.1. xxlarge: OpenCLIP's model card of convnext_xxlarge, which was trained
# with another eps.
ARCHS = {
    "atto": Arch((2, 2, 6, 2), (40, 80, 160, 320)),
    "femto": Arch((2, 2, 6, 2), (48, 96, 192, 384)),
    "pico": Arch((2, 2, 6, 2), (64, 128, 256, 512)),
    "nano": Arch((2, 2, 8, 2), (80, 160, 320, 640)),
    "tiny": Arch((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": Arch((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": Arch((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": Arch((3, 3, 27, 3), (192, 384, 768, 1536)),
    "xlarge": Arch((3, 3, 27, 3), (256, 512, 1024, 2048)),
    "huge": Arch((3, 3, 27, 3), (352, 704, 1408, 2816)),
    "xxlarge": Arch((3, 4, 30, 3), (384, 768, 1536, 3072), norm_eps=1e-5),
}


def resolve_arch(arch: str | Mapping) -> Arch:
    """Look up an architecture by its name, or make one from a dict.

    >>> import convnext_dense
    >>> from convnext_dense.models.archs import resolve_arch
    >>> resolve_arch("tiny").channels
    (96, 192, 384, 768)
    >>> resolve_arch(dict(depths=[1, 1, 2, 1], channels=[8, 16, 24, 32])).depths
    (1, 1, 2, 1)

    Args:
        arch: a name of ``ARCHS``, or a dict with ``depths`` and ``channels``, four
            positive integers each.

    Raises:
        InputError: (a ValueError) the name is unknown, or the dict lacks ``depths`` or
            ``channels`` or has other values in them.
    """
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise InputError(
                f"unknown arch {arch!r} of ConvNeXt: use one of {', '.join(ARCHS)}, or "
                "dict(depths=[3, 3, 9, 3], channels=[96, 192, 384, 768])"
            )
        return ARCHS[arch]
    try:
        depths, channels = tuple(arch["depths"]), tuple(arch["channels"])
    except (KeyError, TypeError):
        depths = channels = ()
    numbers = depths + channels
    if (
        len(depths) != NUM_STAGES
        or len(channels) != NUM_STAGES
        or not all(isinstance(n, int) and n > 0 for n in numbers)
    ):
        raise InputError(
            f"arch={arch!r} of ConvNeXt: give a name ({', '.join(ARCHS)}), or a dict "
            f"with depths and channels, {NUM_STAGES} positive integers each"
        )
    return Arch(depths, channels)
