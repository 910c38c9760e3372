"""Give a checkpoint the names and shapes of another library."""

from collections.abc import Mapping
from typing import Any

import torch

from convnext_dense.errors import InputError
from convnext_dense.models.archs import NUM_STAGES
from convnext_dense.models.convnext import ConvNeXt

from .entries import find, several
from .layout import layout
from .loading import check_finite, fit
from .origins import TARGETS, WRITERS, Conversion, NativeModel
from .recognition import recognise
from .unpickling import placeholders


def convert(
    content: Any, source: str, to: str, prefix: str | None = None
) -> Conversion:
    """Rename the content of a checkpoint for another library.

    A classifier stays one. A detector or segmentor stays whole under native names
    and mmpretrain's, and UPerNet under those of transformers; for other libraries only
    its backbone is taken. Values and dtypes do not change.

    >>> weights = ConvNeXt("tiny").state_dict()
    >>> conversion = convert(weights, "a backbone", to="torchvision")
    >>> model = conversion.build()
    >>> model.load_state_dict(conversion.weights)
    <All keys matched successfully>

    Args:
        content: what ``read`` returned, or a state dict, with one ConvNeXt of any
            origin.
        source: the checkpoint's name, for messages.
        to: one of ``origins.TARGETS``.
        prefix: chooses one of several, as in ``load_pretrained``.

    Raises:
        InputError: the ConvNeXt is incomplete, or the library cannot express it.
    """
    if to not in WRITERS:
        raise InputError(f"to={to!r}: use one of {', '.join(TARGETS)}")
    weights, source = find(content, source, prefix, "--prefix")
    convnexts = recognise(weights)
    if not convnexts:
        raise InputError(f"{source} holds no ConvNeXt: give the checkpoint of one")
    if len(convnexts) > 1:
        raise several(source, (convnext.prefix for convnext in convnexts), "--prefix")
    convnext = convnexts[0]
    size = layout(convnext.backbone)
    if len(size.depths) < NUM_STAGES:
        raise InputError(
            f"{source} holds only the first {len(size.depths)} of {NUM_STAGES} stages"
        )
    if 0 in (*size.depths, *size.channels, size.in_channels):
        raise InputError(f"{source} is not whole: its stem or a stage is missing")
    with torch.device("meta"):
        model = ConvNeXt(
            dict(depths=size.depths, channels=size.channels),
            in_channels=size.in_channels,
            use_grn=size.use_grn,
            layer_scale_init_value=float(size.layer_scale),
        )
    fit(model, convnext, source)  # raises if tensors are missing
    check_finite({**convnext.backbone, **convnext.rest}, source)

    whole = convnext.prefix == "backbone." and bool(convnext.rest)
    norms = [i for i in range(NUM_STAGES) if f"norm{i}.weight" in convnext.backbone]
    native = NativeModel(
        convnext.origin.name, convnext.backbone, convnext.rest, whole, size, norms
    )
    is_classifier = "head.weight" in convnext.backbone
    if is_classifier and "norm.weight" not in convnext.backbone and norms == [3]:
        # mmpretrain calls a classifier's norm norm3.
        native = native.with_renamed("norm3", "norm")._replace(norms=[])
    return WRITERS[to](native)


def meta_of(content: Any) -> Mapping | None:
    """The classes, palette and config that a run writes beside the weights.

    Entries with objects that were left out are not among them.
    """
    meta = content.get("meta") if isinstance(content, Mapping) else None
    if not isinstance(meta, Mapping):
        return None
    return {key: v for key, v in meta.items() if not any(placeholders({key: v}))}
