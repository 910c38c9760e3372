"""Find the weights in the content of a checkpoint.

Training scripts store weights under many names, beside optimizers and settings. An
entry is recognised as weights by its content: names of tensors, among them those of a
ConvNeXt.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from convnext_dense.errors import InputError
from convnext_dense.utils.text import few

from .other_formats import ADAPTER, ZERO
from .reading import as_dict, whole_model
from .recognition import has_convnext
from .unpickling import LeftOut, placeholders, require_built

# The usual keys of the weights. The first one that has tensors is used, whatever else
# is in the file.
CONTAINERS = ("state_dict", "model", "module", "teacher", "state_dict_ema", "model_ema")
_WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile
# Where a config chooses one of several.
OPTION = "init_cfg.prefix"
# Never weights: an optimizer's state can have the names of the model's parameters.
_OPTIMIZER = re.compile(
    r"optim(?!al|um|i[sz]ed)|sched(?!uled)|(?<!up)scalers?(_state\w*)?$"
    r"|momentum_buffer|exp_avg",
    re.IGNORECASE,
)
# The last component of a parameter's name.
_PARAMETER = re.compile(r"(^|\.)(weight|bias|gamma|beta)$")
# Tensors that are left out, and how to get an ordinary one.
_NOT_DENSE = {
    "torch._utils._rebuild_nested_tensor": "tensor.to_padded_tensor(0)",
    "torch._utils._rebuild_qtensor": "tensor.dequantize()",
    "torch._utils._rebuild_sparse_tensor": "tensor.to_dense()",
}
_DEEPEST = 50  # levels of entries in entries
_LONGEST = 10_000  # items of a list that are looked through


class Weights(NamedTuple):
    """The weights in a checkpoint.

    Attributes:
        tensors: by name, without the prefixes that DistributedDataParallel and
            torch.compile put before every name.
        source: the checkpoint's name for messages, with the entry if it is not a usual
            one.
    """

    tensors: dict[str, Tensor]
    source: str


def find(
    content: Any,
    source: str,
    prefix: str | None = None,
    option: str = OPTION,
) -> Weights:
    """The weights in the content of a checkpoint.

    Args:
        content: what ``read`` returned.
        source: the checkpoint's name, for messages.
        prefix: an entry, such as 'params_ema', or what the names of the tensors begin
            with, or both, such as 'state_dict.teacher'. The tensors' names are
            returned without it.
        option: where a user gives the prefix, for messages.

    Raises:
        InputError: there are no tensors, or several entries have a ConvNeXt, or a
            tensor is sparse or quantised.
    """
    content = as_dict(content, source)
    usual = next((key for key in CONTAINERS if _weights(content.get(key))), "")
    if prefix:
        return _below(prefix.rstrip(".") + ".", content, usual, source, option)
    weights = _weights(content[usual]) if usual else _weights(content, top=True)
    convnexts: dict[str, dict[str, Any]] = {}
    for name, entry in _entries(content):
        again = any(_equal(entry, other) for other in convnexts.values())
        if name != usual and has_convnext(entry) and not again:
            convnexts[name] = entry
    if weights and (has_convnext(weights) or not convnexts):
        if convnexts:
            print_log(
                f"{source}: {usual or 'the tensors at its top'!r} is used, "
                f"{few(convnexts)} is not",
                "current",
            )
        return _checked(weights, source, usual)
    if len(convnexts) > 1:
        raise several(source, convnexts, option)
    for name, entry in convnexts.items():
        return _checked(entry, f"{source}, entry {name!r}", name)
    raise _no_weights(content, source)


def several(source: str, names: Iterable[str], option: str) -> InputError:
    """The error for a checkpoint with several ConvNeXts.

    Args:
        names: of the entries, or what the names of the tensors begin with.
        option: where a user gives one of the names.
    """
    names = list(names)
    listed = few(map(repr, names), 10)
    return InputError(
        f"{source} holds {len(names)} ConvNeXts, under {listed}: name one as {option}"
    )


def groups(names: Iterable[str]) -> str:
    """The number of names that share each first component: 'decoder (14), head (2)'."""
    counts = Counter(name.split(".")[0] for name in names)
    return few((f"{top} ({n})" for top, n in sorted(counts.items())), 20) or "nothing"


def _weights(entry: Any, top: bool = False) -> dict[str, Any]:
    """The tensors in an entry, by name, with what stands for those left out.

    Args:
        entry: of the checkpoint, or the content itself.
        top: whether it is the content, which may have other objects beside its
            tensors.

    Returns:
        an empty dict if it has no tensor.
    """
    if isinstance(entry, nn.Module):  # of a trusted file
        entry = entry.state_dict()
    elif isinstance(entry, LeftOut):
        entry = entry.items
    if not isinstance(entry, Mapping):
        return {}
    weights = {}
    for name, value in entry.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim:
            value = torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))
        left_out = isinstance(value, LeftOut) and (
            not top
            or value.name.startswith("torch._utils._rebuild_")
            or _PARAMETER.search(str(name)) is not None
        )
        if isinstance(value, Tensor) or left_out:
            weights[str(name)] = value
    has_tensors = any(isinstance(value, Tensor) for value in weights.values())
    return weights if has_tensors else {}


def _entries(content: Mapping) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries with tensors, at any level, each with its path of keys."""
    seen = {id(content)}

    def below(content: Mapping, above: str, level: int) -> Iterator:
        for key, entry in content.items():
            if _OPTIMIZER.search(str(key)):
                continue
            known = id(entry) in seen  # entries can be shared many times
            seen.add(id(entry))
            if isinstance(entry, list | tuple):
                entry = {str(n): item for n, item in enumerate(entry[:_LONGEST])}
            elif isinstance(entry, LeftOut):
                entry = entry.items
            name = f"{above}{key}"
            weights = _weights(entry)
            if weights:
                yield name, weights
            is_above = isinstance(entry, Mapping) and "param_groups" not in entry
            if is_above and not known and level < _DEEPEST:
                yield from below(entry, f"{name}.", level + 1)

    return below(content, "", 1)


def _equal(weights: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Whether two entries have the same tensors, as a file saved too early has."""
    return weights.keys() == others.keys() and all(
        tensor is other
        or (
            isinstance(tensor, Tensor)
            and isinstance(other, Tensor)
            and not tensor.is_meta
            and torch.equal(tensor, other)
        )
        for tensor, other in zip(weights.values(), others.values(), strict=True)
    )


def _checked(weights: dict[str, Any], source: str, entry: str = "") -> Weights:
    """The weights without the prefixes of wrappers, if all of them are there.

    Raises:
        InputError: one was left out, or they have no values.
    """
    for name, tensor in weights.items():
        if isinstance(tensor, LeftOut) and tensor.name in _NOT_DENSE:
            raise InputError(
                f"{source} was not used: {name} is not an ordinary tensor. Save it as "
                f"one, by {_NOT_DENSE[tensor.name]}"
            )
    require_built(weights, entry, source)
    if all(".lora_" in name for name in weights):
        raise InputError(f"{source} was not used: {ADAPTER}")
    if not any(tensor.numel() for tensor in weights.values()):
        raise InputError(f"{source} holds no weights, only their names: {ZERO}")
    return Weights(_unwrapped(weights), source)


def _unwrapped(weights: dict[str, Any]) -> dict[str, Any]:
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in weights):
            weights = {n.removeprefix(wrapper): w for n, w in weights.items()}
    return weights


def _below(
    prefix: str, content: Mapping, usual: str, source: str, option: str
) -> Weights:
    """The tensors whose names begin with ``prefix``, without it.

    The names in the usual entry come first, then those in any entry, then those that
    begin with the path of an entry.
    """
    entries = {"": _weights(content, top=True), **dict(_entries(content))}
    entries = {name: _unwrapped(weights) for name, weights in entries.items()}
    below = {
        name: cut for name, weights in entries.items() if (cut := _cut(weights, prefix))
    }
    if usual in below:
        return _checked(below[usual], source)
    if len(below) > 1:
        raise several(source, (f"{name}.{prefix}" for name in below), option)
    for name, weights in below.items():
        return _checked(weights, f"{source}, entry {name!r}")
    full = {
        f"{name}.{tensor}": value
        for name, weights in entries.items()
        for tensor, value in weights.items()
    }
    weights = _cut(full, prefix)
    if weights:
        return _checked(weights, f"{source}, entry {prefix[:-1]!r}")
    several_of_them = sum(map(has_convnext, entries.values())) > 1
    raise InputError(
        f"{source} has no tensors below {option}={prefix!r}, only "
        f"{groups(full if several_of_them else entries[usual] or full)}. "
        + (
            "Name one of these"
            if several_of_them
            else "Leave the prefix out: the backbone is found without it"
        )
    )


def _cut(weights: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The tensors below a prefix, under the rest of their names."""
    return {
        n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)
    }


def _models(content: Any) -> Iterator[tuple[tuple, LeftOut]]:
    """Models with their code in dicts and lists, each with the keys that lead to it."""
    seen: set[int] = set()
    stack: list[tuple[tuple, Any]] = [((), content)]
    while stack:
        keys, value = stack.pop()
        if isinstance(value, LeftOut) and value.is_model:
            yield keys, value
        elif id(value) not in seen and isinstance(value, Mapping | list | tuple):
            seen.add(id(value))
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            stack += [((*keys, k), v) for k, v in items if isinstance(k, str | int)]


def _no_weights(content: Mapping, source: str) -> InputError:
    """The error for a checkpoint without weights, which says what it holds."""
    for keys, model in _models(content):
        return InputError(whole_model(source, model.name, keys))
    if not content:
        return InputError(f"{source} holds no weights: it is empty")
    message = f"{source} holds no weights, only {few(content)}"
    left = [
        f"{path} ({placeholder.name})" for path, placeholder in placeholders(content)
    ]
    if "param_groups" in content or any(_OPTIMIZER.search(str(k)) for k in content):
        message += ". It has the state of an optimizer. Give the file with the model"
    elif left:
        message += (
            f". These are not built: {few(left)}. Save the weights as a plain dict: "
            "torch.save(dict(model.state_dict()), 'weights.pth')"
        )
    return InputError(message)
