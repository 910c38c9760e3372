"""Match a checkpoint's tensors with a whole detector or segmentor with a ConvNeXt."""

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from convnext_dense.errors import InputError
from convnext_dense.models.convnext import ConvNeXt

from .entries import find, groups, several
from .loading import FittedTensors, check_finite, check_shapes, fit
from .recognition import recognise

_SOURCE = "convnext_dense.source"  # a key of the state dict's metadata


def with_source(weights: Mapping, source: str | os.PathLike) -> OrderedDict:
    """The same state dict with its source in the metadata, the only thing beside the
    tensors that mmengine keeps."""
    metadata = {**(_metadata_of(weights) or {}), _SOURCE: str(source)}
    return _with_metadata(OrderedDict(weights), metadata)


def _metadata_of(state_dict: Mapping) -> dict | None:
    return getattr(state_dict, "_metadata", None)


def _with_metadata(state_dict: OrderedDict, metadata: dict | None) -> OrderedDict:
    vars(state_dict)["_metadata"] = metadata  # as torch's state dicts have it
    return state_dict


class Match(NamedTuple):
    """The tensors of a checkpoint for a model.

    Attributes:
        model: the model without mmengine's wrappers.
        weights: the tensors, those of recognised backbones under the model's names.
        choices: for each backbone, the tensors that go into it.
        alone: whether the checkpoint has nothing for the model but the backbone.
    """

    model: nn.Module
    weights: Mapping[str, Tensor]
    choices: Sequence[FittedTensors] = ()
    alone: bool = False


def match(model: nn.Module, state_dict: Mapping) -> Match:
    """Find the tensors for ``model`` in a ``state_dict`` of any origin.

    Only ConvNeXts of this package are matched. A model without one keeps its state
    dict as it is.

    Raises:
        InputError: a ConvNeXt of ``model`` would be random, or the tensors for it do
            not fit.
    """
    model = _bare(model)
    backbones = _convnexts(model)
    if not backbones:
        return Match(model, state_dict)
    source = source_of(state_dict)
    option = (
        f"the --prefix of convnext-dense convert-checkpoint {source} weights.pth "
        "--to native --prefix NAME, then give weights.pth"
    )
    weights, source = find(state_dict, source, option=option)
    convnexts = {convnext.prefix: convnext for convnext in recognise(weights)}
    if not convnexts:
        places = [prefix.removesuffix(".") for prefix in backbones if prefix]
        raise InputError(
            f"{source} has no ConvNeXt: {' and '.join(places) or 'the backbone'} would "
            f"be random. The checkpoint holds {groups(weights)}"
        )
    if len(backbones) == len(convnexts) == 1:
        ((place, _),), (convnext,) = backbones.items(), convnexts.values()
        # The whole model can be in another one, as Lightning's modules are.
        outer = convnext.prefix.removesuffix(place)
        if place and outer != convnext.prefix:
            rest = {n.removeprefix(outer): w for n, w in convnext.rest.items()}
            convnext = convnext._replace(rest=rest)
        convnexts = {place: convnext}
    adapted: OrderedDict[str, Tensor] = _with_metadata(
        OrderedDict(), _metadata_of(state_dict)
    )
    if len(backbones) == 1 and not set(backbones) <= set(convnexts):
        raise several(source, convnexts, option)
    if not set(backbones) <= set(convnexts):
        # Semi-supervised models load one backbone into two by themselves.
        for prefix, convnext in convnexts.items():
            adapted.update(convnext.rest)
            adapted.update({prefix + name: w for name, w in convnext.backbone.items()})
        return Match(model, adapted)
    choices = [
        fit(backbone, convnexts[prefix], source)
        for prefix, backbone in backbones.items()
    ]
    for prefix, choice in zip(backbones, choices, strict=True):
        adapted.update(choice.recognised.rest)
        adapted.update({prefix + name: w for name, w in choice.used.items()})
    expected = model.state_dict()
    known = {name: tensor for name, tensor in adapted.items() if name in expected}
    check_finite(known, source)
    choices = [
        choice._replace(
            left=[name for name in choice.left if name not in known],
            new=[name for name in expected if name not in known],
        )
        for choice in choices
    ]
    alone = len(known) == sum(len(choice.used) for choice in choices)
    return Match(model, adapted, choices, alone)


def _bare(model: nn.Module) -> nn.Module:
    """The model without mmengine's wrappers."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        # A model under FSDP has only a shard of each parameter; see engine/fsdp.py.
        inner = getattr(model, "unsharded", None) or model.module
        assert isinstance(inner, nn.Module)
        model = inner
    return model


def _convnexts(model: nn.Module) -> dict[str, nn.Module]:
    """The ConvNeXts in a model, by the prefix of their parameters."""
    return {
        f"{name}." if name else "": module
        for name, module in model.named_modules()
        if isinstance(module, ConvNeXt)
    }


def source_of(state_dict: Mapping) -> str:
    """The path, URL or name that ``state_dict`` was read from."""
    metadata = _metadata_of(state_dict) or {}
    return metadata.get(_SOURCE, "the checkpoint")


def require_whole(model: nn.Module, state_dict: Mapping) -> None:
    """Check that ``state_dict`` has every parameter of ``model``, in its shape.

    Testing and resuming need this: with a random head they would silently give wrong
    results. An auxiliary head, which only training uses, may be missing.

    Raises:
        InputError: a parameter is missing or has another shape.
    """
    matched = match(model, state_dict)
    if not matched.choices:
        return
    source, name = source_of(state_dict), type(matched.model).__name__
    expected = dict(matched.model.named_parameters())
    lacking = [
        parameter
        for parameter in expected
        if parameter not in matched.weights
        and not parameter.startswith("auxiliary_head.")
    ]
    if lacking and matched.alone:
        (choice,) = matched.choices
        raise InputError(
            f"{source} holds a backbone ({choice.recognised.origin.name}) and nothing "
            f"else of this {name}, whose {groups(choice.new)} would be random. Train "
            "with it as model.backbone.init_cfg.checkpoint, then give that run's "
            "checkpoint"
        )
    if lacking:
        raise InputError(
            f"{source} lacks {groups(lacking)} of this {name}: they would be random"
        )
    weights = {n: matched.weights[n] for n in expected if n in matched.weights}
    check_shapes(weights, expected, source)
