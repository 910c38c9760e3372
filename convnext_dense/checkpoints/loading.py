"""Put a checkpoint's weights into a backbone, and say what was used."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mmengine.logging import print_log
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from convnext_dense.errors import InputError

from .layout import layout
from .origins import Origin
from .reading import read
from .recognition import Found, recognise

# Under which key training scripts put the weights; the first one present is taken.
CONTAINERS = ("state_dict", "model", "module", "teacher", "state_dict_ema", "model_ema")
_WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile


def load_pretrained(module: nn.Module, source: str, prefix: str | None = None) -> None:
    """Load pre-trained weights into a backbone and log one line on what was used.

    Whose names the tensors have is recognised. Only the norms of the output maps,
    which a classifier does not have, may be missing.

    Args:
        module: takes the weights; its parameter names are the authors'.
        source: whatever ``read`` takes.
        prefix: takes only the tensors whose names begin so, for a checkpoint
            that holds several backbones.

    Raises:
        InputError: there is no such checkpoint, none of it fits, a tensor's
            shape differs, is missing or not finite. The module is unchanged then.
    """
    weights = tensors(read(source), source)
    if prefix:
        prefix = prefix.rstrip(".") + "."
        below = {n: w for n, w in weights.items() if n.startswith(prefix)}
        if not below:
            raise InputError(
                f"{source} has no tensors below init_cfg.prefix={prefix!r}, only "
                f"{groups(weights)}; leave it out: where the backbone is, is found"
            )
        weights = below
    found = recognise(weights)
    if len(found) > 1:
        raise InputError(
            f"{source} holds {len(found)} ConvNeXts, under "
            + ", ".join(repr(one.prefix) for one in found)
            + ": name one as init_cfg.prefix"
        )
    # Other backbones of this package have names of their own.
    own = Found(Origin("its own names"), "", weights, {})
    choice = fit(module, found[0] if found else own, source)
    module.load_state_dict(choice.used, strict=False)
    choice.report()


@WEIGHT_INITIALIZERS.register_module()
class ConvNeXtPretrained:
    """``load_pretrained`` as one of mmengine's weight initializers.

    ``init_cfg=dict(type='Pretrained', checkpoint=SOURCE)`` of a backbone is built as
    this class.
    """

    def __init__(self, checkpoint: str, prefix: str | None = None):
        self.checkpoint = checkpoint
        self.prefix = prefix

    def __call__(self, module: nn.Module) -> None:
        load_pretrained(module, self.checkpoint, self.prefix)


class Choice(NamedTuple):
    """What of a checkpoint goes into a backbone.

    Attributes:
        source: the checkpoint's name.
        found: what was found there.
        used: the backbone's own names and their tensors.
        size: how many tensors the backbone has.
        left: names in ``found`` that the backbone has no place for.
        new: names of the backbone, and of what is around it, that the checkpoint
            does not have.
    """

    source: str
    found: Found
    used: dict[str, Tensor]
    size: int
    left: list[str]
    new: list[str]

    def report(self) -> None:
        origin, prefix = self.found.origin.name, self.found.prefix
        print_log(
            f"{self.source}: {origin}"
            + (f" under {prefix!r}" if prefix else "")
            + f", {len(self.used)} of the backbone's {self.size} tensors used; "
            f"left there: {groups(self.left)}; new here: {groups(self.new)}",
            logger="current",
        )


def fit(module: nn.Module, found: Found, source: str) -> Choice:
    """Choose what of ``found`` goes into ``module``.

    Raises:
        InputError: it does not fit; the message says in what and what to do.
    """
    own = module.state_dict()
    used = {name: found.backbone[name] for name in own if name in found.backbone}
    if not used:
        there = [*found.backbone, *found.rest]
        raise InputError(
            f"{source} has nothing for this {type(module).__name__}, which would start "
            f"from nothing; its {len(there)} tensors begin with {_few(there)}"
        )
    _check_layout(own, found, source)
    check_shapes(used, own, source)
    integers = [name for name, tensor in used.items() if not tensor.is_floating_point()]
    if integers:
        raise InputError(
            f"{source} does not fit: {integers[0]} is {used[integers[0]].dtype} there"
        )
    check_finite(used, source)
    lacking = [n for n in own if n not in used and not n.startswith("norm")]
    if lacking:
        raise InputError(
            f"{source} lacks {len(lacking)} of the {len(own)} tensors of this "
            f"{type(module).__name__}, such as {_few(lacking)}: it is not whole, or of "
            "another architecture"
        )
    return Choice(
        source,
        found,
        used,
        len(own),
        left=[*(_label(n) for n in found.backbone if n not in used), *found.rest],
        new=[name for name in own if name not in used],
    )


def _label(name: str) -> str:
    return f"classifier {name}" if name.startswith(("head.", "norm.")) else name


def _check_layout(own: Mapping[str, Tensor], found: Found, source: str) -> None:
    here, there = layout(own), layout(found.backbone)
    built = len(here.depths)
    if not built or 0 in (*there.depths, there.in_channels):
        # Not a ConvNeXt, or not whole.
        return
    arch = (
        repr(there.arch)
        if there.arch
        else f"dict(depths={list(there.depths)}, channels={list(there.channels)})"
    )
    settings = dict(
        depths=f"arch={arch}",
        channels=f"arch={arch}",
        in_channels=f"in_channels={there.in_channels}",
        use_grn=f"use_grn={there.use_grn}",
        layer_scale=f"layer_scale_init_value={1.0 if there.layer_scale else 0.0}",
    )
    there = there._replace(depths=there.depths[:built], channels=there.channels[:built])
    differ = [name for name in settings if getattr(here, name) != getattr(there, name)]
    if differ:
        raise InputError(
            f"{source} ({found.origin.name}) is of another architecture: "
            + ", ".join(
                f"{name} {getattr(there, name)} there and {getattr(here, name)} here"
                for name in differ
            )
            + "; set "
            + " and ".join(dict.fromkeys(settings[name] for name in differ))
            + " on the backbone"
        )


def check_shapes(
    given: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str
) -> None:
    """Raise an InputError unless each tensor has the shape of its name in ``own``."""
    for name, tensor in given.items():
        if tensor.shape != own[name].shape:
            raise InputError(
                f"{source} does not fit: {name} is {tuple(tensor.shape)} there and "
                f"{tuple(own[name].shape)} here"
            )


def check_finite(given: Mapping[str, Tensor], source: str) -> None:
    """Raise an InputError if a tensor holds NaN or infinite values."""
    for name, tensor in given.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(
                f"{source} is damaged: {name} holds NaN or infinite values"
            )


def tensors(content, source: str) -> dict[str, Tensor]:
    """The weights in what ``read`` has returned, by name.

    They may be below one of ``CONTAINERS``; what DistributedDataParallel and
    torch.compile put before every name is taken off.

    Raises:
        InputError: there are no tensors.
    """
    for key in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            ema = [k for k in CONTAINERS[-2:] if k != key and k in content]
            if ema:
                print_log(f"{source}: {key!r} is taken, {ema[0]!r} left", "current")
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise InputError(f"{source} holds a {type(content).__name__}, not weights")
    weights = {str(n): w for n, w in content.items() if isinstance(w, Tensor)}
    if not weights:
        raise InputError(
            f"{source} holds no weights, only {_few(map(str, content)) or 'nothing'}"
        )
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in weights):
            weights = {n.removeprefix(wrapper): w for n, w in weights.items()}
    return weights


def _few(names: Iterable[str]) -> str:
    return ", ".join(list(names)[:3])


def groups(names: Iterable[str]) -> str:
    """'head (2), decoder (14)': how many tensors each part of a model has."""
    counts = Counter(name.split(".")[0] for name in names)
    return ", ".join(f"{part} ({n})" for part, n in sorted(counts.items())) or "nothing"
