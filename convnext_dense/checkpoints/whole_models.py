"""Fit a checkpoint's tensors to a whole detector or segmentor with a ConvNeXt."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from convnext_dense.errors import InputError
from convnext_dense.models.convnext import ConvNeXt

from .loading import Choice, check_finite, check_shapes, fit, groups, tensors
from .recognition import recognise

_SOURCE = "convnext_dense.source"  # a key of the state dict's metadata


def with_source(weights: Mapping, source) -> OrderedDict:
    """The same with its source in the metadata, which is all that mmengine keeps of
    a state dict beside the tensors."""
    named = OrderedDict(weights)
    named._metadata = {**getattr(weights, "_metadata", {}), _SOURCE: str(source)}
    return named


class Match(NamedTuple):
    """What a checkpoint has for a model.

    Attributes:
        model: without the wrappers of mmengine.
        weights: under the model's own names, as far as they were recognised.
        choices: what was chosen for each backbone.
        alone: there is nothing for the model but its backbone.
    """

    model: nn.Module
    weights: Mapping[str, Tensor]
    choices: Sequence[Choice] = ()
    alone: bool = False


def match(model: nn.Module, state_dict: Mapping) -> Match:
    """Find what ``state_dict``, by whatever library's names, has for ``model``.

    Only ConvNeXts of this package are looked at; a model without one keeps its
    state dict as it is.

    Raises:
        InputError: a ConvNeXt of ``model`` would start from nothing, or what is
            there for it does not fit.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        # FSDP's has but a part of each parameter; see engine/fsdp.py.
        model = getattr(model, "unsharded", None) or model.module
    backbones = _convnexts(model)
    if not backbones:
        return Match(model, state_dict)
    source = source_of(state_dict)
    weights = tensors(state_dict, source)
    found = {one.prefix: one for one in recognise(weights)}
    if not found:
        where = [prefix.removesuffix(".") for prefix in backbones if prefix]
        raise InputError(
            f"{source} has no ConvNeXt: {' and '.join(where) or 'the backbone'} would "
            f"start from nothing. It holds {groups(weights)}"
        )
    if len(backbones) == len(found) == 1:
        found = dict(zip(backbones, found.values(), strict=True))
    adapted = OrderedDict()
    adapted._metadata = getattr(state_dict, "_metadata", None)
    if not set(backbones) <= set(found):
        # The model places them itself, as semi-supervised ones do: one for two.
        for prefix, one in found.items():
            adapted.update(one.rest)
            adapted.update({prefix + name: w for name, w in one.backbone.items()})
        return Match(model, adapted)
    choices = [fit(one, found[prefix], source) for prefix, one in backbones.items()]
    for prefix, choice in zip(backbones, choices, strict=True):
        adapted.update(choice.found.rest)
        adapted.update({prefix + name: w for name, w in choice.used.items()})
    own = model.state_dict()
    known = {name: tensor for name, tensor in adapted.items() if name in own}
    check_finite(known, source)
    choices = [
        choice._replace(
            left=[name for name in choice.left if name not in known],
            new=[name for name in own if name not in known],
        )
        for choice in choices
    ]
    alone = len(known) == sum(len(choice.used) for choice in choices)
    return Match(model, adapted, choices, alone)


def _convnexts(model: nn.Module) -> dict[str, nn.Module]:
    return {
        f"{name}." if name else "": module
        for name, module in model.named_modules()
        if isinstance(module, ConvNeXt)
    }


def source_of(state_dict: Mapping) -> str:
    """What was given to read ``state_dict`` from."""
    metadata = getattr(state_dict, "_metadata", None) or {}
    return metadata.get(_SOURCE, "the checkpoint")


def require_whole(model: nn.Module, state_dict: Mapping) -> None:
    """See that ``state_dict`` has every parameter of ``model``, in its shape.

    For testing and resuming, where a head that starts from nothing is a silent
    loss. An auxiliary head, which only training uses, may be missing.

    Raises:
        InputError: it does not.
    """
    matched = match(model, state_dict)
    if not matched.choices:
        return
    source, name = source_of(state_dict), type(matched.model).__name__
    own = dict(matched.model.named_parameters())
    lacking = [
        parameter
        for parameter in own
        if parameter not in matched.weights
        and not parameter.startswith("auxiliary_head.")
    ]
    if lacking and matched.alone:
        (choice,) = matched.choices
        raise InputError(
            f"{source} holds a backbone ({choice.found.origin.name}) and nothing else "
            f"of this {name}, whose {groups(choice.new)} would be random. Train with "
            "it as model.backbone.init_cfg.checkpoint, then give that run's checkpoint"
        )
    if lacking:
        raise InputError(
            f"{source} lacks {groups(lacking)} of this {name}: they would be random"
        )
    given = {n: matched.weights[n] for n in own if n in matched.weights}
    check_shapes(given, own, source)
