"""Load a checkpoint's weights into a backbone, and log which tensors were used."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from mmengine.logging import print_log
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from convnext_dense.errors import InputError
from convnext_dense.models.archs import ARCHS, NUM_STAGES
from convnext_dense.utils.text import few

from .entries import OPTION, find, groups, several
from .layout import layout
from .origins import Origin
from .reading import read
from .recognition import RecognisedConvNeXt, recognise
from .variants import differences

Backbone = TypeVar("Backbone", bound=nn.Module)


def load_pretrained(module: nn.Module, source: str, prefix: str | None = None) -> None:
    """Load pre-trained weights into a backbone and log one line on what was used.

    The checkpoint's origin is recognised from its keys. Only the norms of the output
    maps, which a classifier does not have, may be missing.

    >>> import torch
    >>> from convnext_dense import ConvNeXt
    >>> torch.save(ConvNeXt("atto").state_dict(), "atto.pth")
    >>> load_pretrained(ConvNeXt("atto"), "atto.pth")  # or "timm://...", "hf://..."

    Args:
        module: the backbone; its parameter names are the authors'.
        source: whatever ``read`` takes.
        prefix: uses only this entry of the checkpoint, or only the tensors whose names
            begin with this, for a checkpoint with several backbones.

    Raises:
        InputError: there is no such checkpoint; or none of its tensors fits; or a
            tensor is missing, not finite, or of another shape. The module is unchanged
            then.
    """
    weights, source = find(read(source), source, prefix)
    convnexts = recognise(weights)
    if len(convnexts) > 1:
        raise several(source, (convnext.prefix for convnext in convnexts), OPTION)
    # The package's other backbones have other names, which no library uses.
    unrecognised = RecognisedConvNeXt(Origin("its own names"), "", weights, {})
    choice = fit(module, convnexts[0] if convnexts else unrecognised, source)
    module.load_state_dict(choice.used, strict=False)
    choice.report()


_SHARD_NAME = re.compile(r"-\d{5}-of-\d{5}\.")
_BLOCK_GAMMA = re.compile(r"stages\.\d+\.\d+\.gamma")
_SHARD = (
    ". It is one of several files: name their index (*.index.json), or their folder"
)


@WEIGHT_INITIALIZERS.register_module()
class ConvNeXtPretrained:
    """``load_pretrained`` as one of mmengine's weight initializers.

    A backbone's ``init_cfg=dict(type='Pretrained', checkpoint=SOURCE)`` builds this
    class.
    """

    def __init__(self, checkpoint: str, prefix: str | None = None):
        self.checkpoint = checkpoint
        self.prefix = prefix

    def __call__(self, module: nn.Module) -> None:
        load_pretrained(module, self.checkpoint, self.prefix)

    def build(self, backbone: type[Backbone], arguments: Mapping) -> Backbone:
        """Build a backbone of the checkpoint's architecture and load the weights.

        Args:
            backbone: ``ConvNeXt``.
            arguments: of its constructor; they replace those read from the checkpoint.

        Raises:
            InputError: as ``load_pretrained``; or the checkpoint has no ConvNeXt, or
                too little of one to tell its architecture.
        """
        weights, source = find(
            read(self.checkpoint), self.checkpoint, self.prefix, "prefix"
        )
        convnexts = recognise(weights)
        if not convnexts:
            raise InputError(
                f"{source} has no ConvNeXt. It holds {groups(weights)}. Name the "
                "checkpoint of a ConvNeXt"
            )
        if len(convnexts) > 1:
            raise several(source, (convnext.prefix for convnext in convnexts), "prefix")
        (convnext,) = convnexts
        _check_variant(convnext, source)
        module = backbone(**_with_architecture(arguments, convnext, source))
        choice = fit(module, convnext, source)
        module.load_state_dict(choice.used, strict=False)
        choice.report()
        return module


def _with_architecture(
    arguments: Mapping, convnext: RecognisedConvNeXt, source: str
) -> dict[str, Any]:
    """A constructor's arguments, and those that follow from a checkpoint's tensors.

    A backbone's checkpoint may lack the stages after its last output map.

    Raises:
        InputError: ``arguments`` has no arch, and the tensors do not tell it.
    """
    theirs = layout(convnext.backbone)
    built = len(theirs.depths)
    arch: str | dict | None = theirs.arch
    if built == NUM_STAGES:
        arch = arch or dict(depths=theirs.depths, channels=theirs.channels)
    elif f"norm{built - 1}.weight" in convnext.backbone:
        first = {name: (d[:built], c[:built]) for name, (d, c, _) in ARCHS.items()}
        arch = next((name for name in first if first[name] == theirs[:2]), None)
    if not (arch or "arch" in arguments) or 0 in (*theirs.depths, *theirs.channels):
        raise InputError(
            f"{source} ({convnext.origin.name}) has {built} of the {NUM_STAGES} stages "
            f"of a ConvNeXt, with {list(theirs.depths)} blocks and "
            f"{list(theirs.channels)} channels: it is not whole, or of an architecture "
            "without a name. If it is whole, give arch=dict(depths=[...], "
            "channels=[...]) and out_indices=[...]"
        )
    return dict(
        arch=arch,
        in_channels=theirs.in_channels,
        use_grn=theirs.use_grn,
        layer_scale_init_value=1e-6 if theirs.layer_scale else 0.0,
        out_indices=tuple(range(built)),
    ) | dict(arguments)


class FittedTensors(NamedTuple):
    """The tensors of a checkpoint that go into a backbone.

    Attributes:
        source: the checkpoint's name.
        recognised: the ConvNeXt in the checkpoint.
        used: the backbone's parameter names, and the checkpoint's tensors for them.
        size: the number of the backbone's tensors.
        left: names in ``recognised`` that the model has no place for.
        new: names of the model that the checkpoint does not have.
    """

    source: str
    recognised: RecognisedConvNeXt
    used: dict[str, Tensor]
    size: int
    left: list[str]
    new: list[str]

    def report(self) -> None:
        """Log the origin and which tensors were used, in one line."""
        origin, prefix = self.recognised.origin.name, self.recognised.prefix
        print_log(
            f"{self.source}: {origin}"
            + (f" under {prefix!r}" if prefix else "")
            + f", {len(self.used)} of the backbone's {self.size} tensors used; "
            f"not used: {groups(self.left)}; not in the checkpoint: "
            f"{groups(self.new)}",
            logger="current",
        )


def fit(
    module: nn.Module, recognised: RecognisedConvNeXt, source: str
) -> FittedTensors:
    """Choose the tensors of ``recognised`` that go into ``module``.

    Raises:
        InputError: they do not fit. The message says where they differ and what to do.
    """
    expected = module.state_dict()
    if getattr(module, "optimized", False):  # it folds layer scale when it loads it
        for name in filter(_BLOCK_GAMMA.fullmatch, recognised.backbone):
            bias = name.replace("gamma", "pwconv2.bias")  # has its shape
            if bias in expected:
                expected[name] = expected[bias]
    used = {
        name: recognised.backbone[name]
        for name in expected
        if name in recognised.backbone
    }
    if not used:
        names = [*recognised.backbone, *recognised.rest]
        raise InputError(
            f"{source} has no tensor of this {type(module).__name__}, whose weights "
            f"would be random. The checkpoint's {len(names)} tensors begin with "
            f"{few(names)}"
        )
    _check_variant(recognised, source)
    _check_layout(expected, recognised, source)
    check_shapes(used, expected, source)
    integers = [name for name, tensor in used.items() if not tensor.is_floating_point()]
    if integers:
        raise InputError(
            f"{source} does not fit: {integers[0]} is {used[integers[0]].dtype} in it"
        )
    check_finite(used, source)
    lacking = [n for n in expected if n not in used and not n.startswith("norm")]
    if lacking:
        raise InputError(
            f"{source} lacks {len(lacking)} of the {len(expected)} tensors of this "
            f"{type(module).__name__}, such as {few(lacking)}: it is not whole, or of "
            f"another architecture{_SHARD if _SHARD_NAME.search(source) else ''}"
        )
    return FittedTensors(
        source,
        recognised,
        used,
        len(expected),
        left=[
            *(_label(n) for n in recognised.backbone if n not in used),
            *recognised.rest,
        ],
        new=[name for name in expected if name not in used],
    )


def _label(name: str) -> str:
    """The name for a report, which marks a classifier's layers."""
    return f"classifier {name}" if name.startswith(("head.", "norm.")) else name


def _check_variant(recognised: RecognisedConvNeXt, source: str) -> None:
    """Raise an InputError if no architecture of this package can take the weights."""
    if others := differences(recognised.backbone):
        raise InputError(
            f"{source} ({recognised.origin.name}) is of a variant of ConvNeXt that "
            f"cannot be loaded: it has {' and '.join(others)}. Use the checkpoint of "
            "another model; docs/checkpoints.md lists those that load"
        )


def _check_layout(
    expected: Mapping[str, Tensor], recognised: RecognisedConvNeXt, source: str
) -> None:
    """Raise an InputError with the settings to change if the architectures differ."""
    ours, theirs = layout(expected), layout(recognised.backbone)
    built = len(ours.depths)
    incomplete = len(theirs.depths) < built or 0 in (*theirs.depths, theirs.in_channels)
    if not built or incomplete:
        # The module is not a ConvNeXt, or the checkpoint is incomplete.
        return
    arch = (
        repr(theirs.arch)
        if theirs.arch
        else f"dict(depths={list(theirs.depths)}, channels={list(theirs.channels)})"
    )
    settings = dict(
        depths=f"arch={arch}",
        channels=f"arch={arch}",
        in_channels=f"in_channels={theirs.in_channels}",
        use_grn=f"use_grn={theirs.use_grn}",
        layer_scale=f"layer_scale_init_value={1.0 if theirs.layer_scale else 0.0}",
    )
    theirs = theirs._replace(
        depths=theirs.depths[:built], channels=theirs.channels[:built]
    )
    differ = [name for name in settings if getattr(ours, name) != getattr(theirs, name)]
    if differ:
        raise InputError(
            f"{source} ({recognised.origin.name}) is of another architecture: "
            + ", ".join(
                f"{name} {getattr(theirs, name)} in the checkpoint and "
                f"{getattr(ours, name)} in the model"
                for name in differ
            )
            + "; set "
            + " and ".join(dict.fromkeys(settings[name] for name in differ))
            + " on the backbone"
        )


def check_shapes(
    weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str
) -> None:
    """Raise an InputError unless each tensor has the shape it has in ``expected``."""
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise InputError(
                f"{source} does not fit: {name} is {tuple(tensor.shape)} in it and "
                f"{tuple(expected[name].shape)} in the model"
            )


def check_finite(weights: Mapping[str, Tensor], source: str) -> None:
    """Raise an InputError if a tensor holds NaN or infinite values."""
    for name, tensor in weights.items():
        if not tensor.is_floating_point():
            continue
        # PyTorch has no isfinite for float8.
        values = tensor.float() if tensor.itemsize == 1 else tensor
        if not values.isfinite().all():
            raise InputError(
                f"{source} is damaged: {name} holds NaN or infinite values"
            )
