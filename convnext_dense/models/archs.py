"""The architectures by name: how many blocks and channels each stage has."""

from collections.abc import Mapping
from typing import NamedTuple

from convnext_dense.errors import InputError

NUM_STAGES = 4
NORM_EPS = 1e-6  # of the authors' norms


class Arch(NamedTuple):
    """Blocks and channels of each stage; what the norms add to a variance."""

    depths: tuple[int, ...]
    channels: tuple[int, ...]
    norm_eps: float = NORM_EPS


# arXiv 2201.03545, section 3.1; atto to nano, and huge: 2301.00808, appendix A.1;
# xxlarge: OpenCLIP's model card of convnext_xxlarge; trained with another eps.
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
    """The architecture of a name, or of a dict with depths and channels.

    Raises:
        InputError: there is none of that name, or the dict does not have them.
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
