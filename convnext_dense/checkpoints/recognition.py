"""Find the ConvNeXts in a checkpoint, and give their tensors native names and shapes.

The origin is recognised from the name of the first depthwise convolution, which differs
between the libraries. The text before that name is the prefix of the backbone in the
file.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from .origins import ORIGINS, SIGNATURE, Origin, names


class RecognisedConvNeXt(NamedTuple):
    """A ConvNeXt in a checkpoint.

    Attributes:
        origin: the naming that it has there.
        prefix: what its names begin with there.
        backbone: its tensors under native names and in native shapes, with the
            classifier's ``norm`` and ``head`` if it is a classifier.
        rest: all other tensors; those of transformers' UPerNet have mmseg's names.
    """

    origin: Origin
    prefix: str
    backbone: dict[str, Tensor]
    rest: dict[str, Tensor]


def recognise(weights: Mapping[str, Tensor]) -> list[RecognisedConvNeXt]:
    """Every ConvNeXt in ``weights``, of any origin."""
    signatures: set[str] = set()  # that an origin has already taken
    convnexts = []
    for origin in ORIGINS:
        for signature, prefix in _places(weights, origin):
            if signature not in signatures:
                signatures.add(signature)
                convnexts.append(_to_native(weights, origin, prefix))
    return convnexts


def has_convnext(names: Iterable[str]) -> bool:
    """Whether tensors with these names are those of a ConvNeXt, of any origin."""
    weights = dict.fromkeys(names)
    return any(next(_places(weights, origin), None) for origin in ORIGINS)


def _places(weights: Mapping[str, Any], origin: Origin) -> Iterator[tuple[str, str]]:
    """The names in ``weights`` that are the signature of ``origin``, with prefixes."""
    signature = names(origin, 1)[SIGNATURE]
    for name in weights:
        if name == signature or name.endswith(f".{signature}"):
            prefix = name.removesuffix(signature)
            twin, beside = f"{prefix}{origin.twin}.weight", f"{prefix}{origin.beside}."
            if (
                prefix.endswith(origin.prefix)
                and (not origin.twin or twin in weights)
                and (not origin.beside or any(n.startswith(beside) for n in weights))
            ):
                yield name, prefix


def _to_native(
    weights: Mapping[str, Tensor], origin: Origin, prefix: str
) -> RecognisedConvNeXt:
    numbers = [
        int(number)
        for name in weights
        for number in re.findall(r"(?<!\d)\d{1,3}(?!\d)", name)
    ]
    max_depth = 1 + max(numbers, default=0)
    table = names(origin, max_depth, prefix)
    native = {theirs: name for name, theirs in table.items()}
    backbone, rest = {}, {}
    for name, tensor in weights.items():
        if name in native:
            backbone[native[name]] = origin.native_shape(native[name], tensor)
        elif not (origin.twin and name.startswith(f"{prefix}{origin.twin}.")):
            rest[origin.rest_name(name)] = tensor
    # A last norm without a classifier belongs to the last map, as DINOv3 uses it.
    if not rest and "head.weight" not in backbone and "norm3.weight" not in backbone:
        for parameter in ("weight", "bias"):
            if f"norm.{parameter}" in backbone:
                backbone[f"norm3.{parameter}"] = backbone.pop(f"norm.{parameter}")
    return RecognisedConvNeXt(origin, prefix, backbone, rest)
