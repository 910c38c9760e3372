"""Let mmengine load any checkpoint into a detector or segmentor with a ConvNeXt.

``load_from``, ``--resume``, a tool's CHECKPOINT argument and the toolboxes' own
inference all come through two functions of mmengine: one reads the file, one puts
a state dict into a model. ``install`` makes the first read safely, and lets the
second see the backbone's tensors under their native names. A model without this
package's ConvNeXt is loaded as ever.
"""

import functools
from collections import OrderedDict
from collections.abc import Mapping

from mmengine import runner as mmengine_runner
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import nn

from ..errors import InputError
from .loading import Choice, check_finite, check_shapes, fit, groups, tensors
from .reading import read
from .recognition import recognise

# mmengine's patterns, with all that it would unpickle by itself.
_SCHEMES = (
    *("", "http://", "https://", "timm://", "hf://", "modelzoo://", "torchvision://"),
    *("open-mmlab://", "openmmlab://", "mmcls://", "pavi://"),
    *(r"(\S+\:)?s3://", r"(\S+\:)?petrel://"),
)
_SOURCE = "convnext_dense.source"  # a key of the state dict's metadata


def install() -> None:
    """Make mmengine read every checkpoint by ``read`` and know all origins."""
    CheckpointLoader.register_scheme(_SCHEMES, _load, force=True)
    plain = mmengine_checkpoint.load_state_dict
    if hasattr(plain, "__wrapped__"):  # installed already
        return

    @functools.wraps(plain)
    def load_state_dict(module, state_dict, strict=False, logger=None):
        target, weights, choices = match(module, state_dict)
        for choice in choices:
            choice.report()
        plain(target, weights, strict=strict, logger=logger)

    mmengine_checkpoint.load_state_dict = load_state_dict
    mmengine_runner.load_state_dict = load_state_dict


def _load(filename, map_location=None):
    content = read(filename, map_location)
    if str(filename).startswith("mmcls://"):
        content = mmengine_checkpoint._process_mmcls_checkpoint(content)
    if isinstance(content, Mapping):
        # The metadata is all that mmengine keeps of a state dict but its tensors.
        if not hasattr(content, "_metadata"):
            content = OrderedDict(content)
        state_dict = content.get("state_dict", content)
        if not hasattr(state_dict, "_metadata"):
            state_dict = content["state_dict"] = OrderedDict(state_dict)
        state_dict._metadata = {
            **getattr(state_dict, "_metadata", {}),
            _SOURCE: str(filename),
        }
    return content


def match(
    model: nn.Module, state_dict: Mapping
) -> tuple[nn.Module, Mapping, list[Choice]]:
    """What to load into what, so that ``state_dict`` serves ``model``.

    Args:
        model: any module; only ConvNeXts of this package in it are looked at.
        state_dict: a checkpoint's weights, by whatever library's names.

    Returns:
        ``model``, its state dict under its own names, and what was chosen for each
        backbone; or the backbone and its tensors, where the checkpoint has nothing
        else for the model.

    Raises:
        InputError: a ConvNeXt of ``model`` would start from nothing, or what is
            there for it does not fit.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    backbones = _convnexts(model)
    if not backbones:
        return model, state_dict, []
    source = source_of(state_dict)
    weights = tensors(state_dict, source)
    found = {one.prefix: one for one in recognise(weights)}
    if not found:
        raise InputError(
            f"{source} has no ConvNeXt: {' and '.join(backbones) or 'the backbone'} "
            f"would start from nothing. It holds {groups(weights)}"
        )
    if len(backbones) == len(found) == 1:
        found = dict(zip(backbones, found.values(), strict=True))
    if not set(backbones) <= set(found):
        return model, state_dict, []  # it places them itself: teacher and student
    own, choices = model.state_dict(), []
    adapted = OrderedDict()
    for prefix, backbone in backbones.items():
        choice = fit(backbone, found[prefix], source)
        adapted.update(choice.found.rest)
        adapted.update({prefix + name: w for name, w in choice.used.items()})
        choices.append(choice)
    known = {name: tensor for name, tensor in adapted.items() if name in own}
    check_finite(known, source)
    others = [name for name in own if name not in known]
    choices[0] = choices[0]._replace(new=others)
    for i, choice in enumerate(choices):
        left = [name for name in choice.left if name not in known]
        choices[i] = choice._replace(left=left)
    if len(choices) == 1 and len(known) == len(choices[0].used):
        return backbone, choices[0].used, choices
    adapted._metadata = getattr(state_dict, "_metadata", None)
    return model, adapted, choices


def _convnexts(model: nn.Module) -> dict[str, nn.Module]:
    from ..backbone import ConvNeXt  # which itself loads by this package

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
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    target, weights, choices = match(model, state_dict)
    if not choices:
        return
    source, own = source_of(state_dict), dict(model.named_parameters())
    given = weights if target is model else {}
    lacking = [
        name
        for name in own
        if name not in given and not name.startswith("auxiliary_head.")
    ]
    if target is not model:
        raise InputError(
            f"{source} holds a backbone ({choices[0].found.origin.name}) and nothing "
            f"else of this {type(model).__name__}, whose {groups(choices[0].new)} "
            "would be random. Train with it as model.backbone.init_cfg.checkpoint, "
            "then give the checkpoint of that run"
        )
    if lacking:
        raise InputError(
            f"{source} lacks {groups(lacking)} of this {type(model).__name__}: they "
            "would be random"
        )
    check_shapes({name: given[name] for name in own if name in given}, own, source)
