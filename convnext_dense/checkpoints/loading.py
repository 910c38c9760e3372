"""Put a checkpoint's weights into a module, and say what was used."""

from collections import Counter

from mmengine.logging import print_log
from torch import Tensor, nn

from ..errors import InputError
from .reading import read

# Under which key training scripts put the weights; the first one present is taken.
CONTAINERS = ("state_dict", "model", "module")


def load_pretrained(module: nn.Module, source: str, prefix: str = "") -> None:
    """Load pre-trained weights into a backbone and log one line on what was used.

    Classification checkpoints have no norms for the output maps; those may be
    missing, nothing else may.

    Args:
        module: takes the weights; its parameter names are the authors'.
        source: a path or URL.
        prefix: takes only the tensors whose names begin so, without it, as
            ``'backbone.'`` does for a whole detector's checkpoint.

    Raises:
        InputError: there is no such checkpoint, none of it fits, a tensor's
            shape differs, or one is missing. The module is then unchanged.
    """
    given = {
        name.removeprefix(prefix): _as_here(name, tensor)
        for name, tensor in _tensors(read(source), source).items()
        if name.startswith(prefix)
    }
    own = module.state_dict()
    used = {name: given[name] for name in own if name in given}
    missing = [name for name in own if name not in given]
    if not used:
        raise InputError(
            f"none of the {len(given)} tensors in {source}"
            + (f" under {prefix!r}" if prefix else "")
            + f" belongs to this {type(module).__name__}: it would start from nothing."
            f" First names there: {_few(given) or 'none'}; expected: {_few(own)}"
        )
    for name, tensor in used.items():
        if tensor.shape != own[name].shape:
            raise InputError(
                f"{source} is of another architecture: {name} is "
                f"{tuple(tensor.shape)} there and {tuple(own[name].shape)} here; set "
                "arch (and in_channels) to what it was trained with"
            )
    lacking = [name for name in missing if not name.startswith("norm")]
    if lacking:
        raise InputError(
            f"{source} lacks {len(lacking)} tensors of this {type(module).__name__}, "
            f"such as {_few(lacking)}; set arch, use_grn and layer_scale_init_value to "
            "what it was trained with"
        )
    module.load_state_dict(used, strict=False)
    print_log(
        f"{len(used)} of {len(own)} tensors of the backbone from {source}; "
        f"left there: {_groups(n for n in given if n not in used)}; "
        f"new here: {_groups(missing)}",
        logger="current",
    )


def _tensors(content, source) -> dict:
    for key in CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict):
        raise InputError(f"{source} holds a {type(content).__name__}, not weights")
    return {name: value for name, value in content.items() if hasattr(value, "shape")}


def _as_here(name: str, tensor: Tensor) -> Tensor:
    """GRN's vectors have leading axes of one in the authors' checkpoints."""
    return tensor.flatten() if name.endswith((".grn.gamma", ".grn.beta")) else tensor


def _few(names) -> str:
    return ", ".join(list(names)[:3])


def _groups(names) -> str:
    counts = Counter(name.split(".")[0] for name in names)
    return ", ".join(f"{group} ({n})" for group, n in counts.items()) or "nothing"
