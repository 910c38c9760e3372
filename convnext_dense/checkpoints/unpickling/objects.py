"""Builds the objects that a checkpoint's pickle may ask for, from checked arguments.

``CALLS`` has a function for each name. Nothing is imported by name.
"""

import argparse
import pathlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from . import arrays, tensors
from .limits import Limits
from .names import LeftOut, Named, Unknown
from .refused import Damaged, Refused
from .table import Unbuilt

_DATA = (type(None), bool, int, float, str)
FACTORIES: dict[str | None, Callable | None] = {
    None: None,
    "builtins.bool": bool,
    "builtins.dict": dict,
    "builtins.float": float,
    "builtins.int": int,
    "builtins.list": list,
    "builtins.set": set,
    "builtins.str": str,
    "builtins.tuple": tuple,
    "collections.OrderedDict": OrderedDict,
}


class _UnbuiltHistory(Unbuilt):
    """A ``HistoryBuffer`` without its numbers, of which it makes copies."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def build(self, state: Any) -> HistoryBuffer:
        """``state``: its attributes. Only the numbers are used.

        The names of statistics that it has, too, belong to the class and not to the
        numbers.
        """
        if type(state) is not dict:
            raise Refused("a HistoryBuffer without a dict as its state")
        length = state.get("max_length", 1_000_000)
        values: Any = state.get("_log_history")
        counts: Any = state.get("_count_history")
        for numbers in (values, counts):
            if (
                type(numbers) is not np.ndarray
                or numbers.dtype.kind not in "biuf"
                or numbers.ndim != 1
            ):
                raise Refused("a HistoryBuffer of something else than numbers")
        self._limits.spend(values.nbytes + counts.nbytes)
        if type(length) is not int or length < 1 or len(values) != len(counts):
            raise Damaged("a HistoryBuffer in it has more values than counts")
        return HistoryBuffer(values[-length:], counts[-length:], length)


class UnbuiltRecord(Unbuilt):
    """An object of a listed class without its attributes."""

    def __init__(self, cls: type) -> None:
        self._cls = cls

    def build(self, state: Any) -> object:
        """``state``: its attributes, a dict."""
        result: object = object.__new__(self._cls)
        set_attributes(result, state)
        return result


def versions(metadata: Any) -> OrderedDict:
    """The versions of a state dict's modules, by which torch loads older ones.

    The metadata may have other entries, with which torch would replace the model's
    parameters by those of the file. The optimizer would not know these.
    """
    result: OrderedDict[str, dict[str, int]] = OrderedDict()
    for name, entry in metadata.items() if isinstance(metadata, dict) else ():
        version = entry.get("version") if isinstance(entry, dict) else None
        if isinstance(name, str) and type(version) is int:
            result[name] = {"version": version}
    return result


def set_attributes(value: object, state: Any) -> None:
    """Set the attributes of an object from a dict.

    Raises:
        Refused: the state is no dict, or an attribute is more than data.
    """
    name = type(value).__name__
    if type(state) is not dict:
        raise Refused(f"a {name} without a dict as its state")
    for attribute in state:
        # __class__, __dict__ and others are more than data.
        if not isinstance(attribute, str) or attribute.startswith("__"):
            raise Refused(f"a {name} with the attribute {attribute!r:.40}")
    vars(value).update(state)


def _config_dict(content: Any, limits: Limits) -> ConfigDict:
    limits.spend(len(content))
    result = ConfigDict()
    # Not ConfigDict(content): it would copy all dicts below, which are ConfigDicts
    # already, once for each level.
    dict.update(result, content)
    return result


def _filled(factory: Callable, content: Any, limits: Limits) -> Any:
    """A set or a dict with content that the file lists."""
    if not isinstance(content, list | tuple | dict | set):
        raise Refused(f"{factory.__name__} of a {type(content).__name__}")
    limits.spend(len(content))
    if factory is OrderedDict and not isinstance(content, dict):
        content = [(key, value) for key, value in content]
        limits.check_keys(key for key, _ in content)
    else:
        limits.check_keys(content)
    return factory(content)


def _bytes(text: Any, encoding: Any, limits: Limits) -> bytes:
    """``_codecs.encode``, by which protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refused(f"_codecs.encode to {encoding!r:.40}")
    limits.spend(len(text))
    return text.encode("latin-1")


def _bytearray(limits: Limits, *arguments: Any) -> bytearray:
    match arguments:
        case ():
            return bytearray()
        case (bytes() | bytearray() as content,):
            limits.spend(len(content))
            return bytearray(content)
        case (str() as text, encoding):
            return bytearray(_bytes(text, encoding, limits))
    raise Refused("builtins.bytearray of a number")


def _attribute(owner: Any, name: Any) -> str | Unknown:
    """``getattr``: of a class and a method, by which protocol 2 writes a method, or of
    what is left out, such as the member of an enumeration."""
    if isinstance(owner, Unknown | LeftOut):
        return Unknown(f"{owner.name}.{name!s:.80}")
    full = f"{getattr(owner, 'name', type(owner).__name__)}.{name!s:.80}"
    if full not in METHODS:
        raise Refused(f"builtins.getattr of {full}")
    return full


def _plain(name: str, factory: Callable) -> Callable:
    """``factory``, for arguments that are numbers and text."""

    def make(limits: Limits, *arguments: Any) -> Any:
        for argument in arguments:
            if type(argument) not in _DATA:
                raise Refused(f"{name} of a {type(argument).__name__}")
        return factory(*arguments)

    return make


def _size(limits: Limits, *arguments: Any) -> torch.Size:
    (sizes,) = arguments
    if type(sizes) not in (tuple, list) or any(type(n) is not int for n in sizes):
        raise Refused("torch.Size of something else than numbers")
    limits.spend(len(sizes))
    return torch.Size(sizes)


def _path(limits: Limits, *arguments: Any) -> pathlib.PurePath:
    if not all(type(argument) is str for argument in arguments):
        raise Refused("pathlib.Path of something else than text")
    limits.spend(16 * sum(map(len, arguments)))  # Python keeps each component
    return pathlib.Path(*arguments)


def _windows_path(limits: Limits, *arguments: Any) -> pathlib.PurePath:
    return pathlib.PureWindowsPath(_path(limits, *arguments))


def _instance(cls: Any) -> LeftOut:
    """``copyreg._reconstructor``, by which protocols 0 and 1 write an instance."""
    if not isinstance(cls, Unknown):
        raise Refused("copyreg._reconstructor")
    return LeftOut(cls.name)


def _slice(limits: Limits, *arguments: Any) -> slice:
    if not all(argument is None or type(argument) is int for argument in arguments):
        raise Refused("builtins.slice of something else than numbers")
    return slice(*arguments)


_LAYOUTS = {
    f"torch.{name}": getattr(torch, name)
    for name in (
        *("strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr"),
        "sparse_bsc",
    )
}


def _layout(name: Any) -> torch.layout:
    if name not in _LAYOUTS:
        raise Refused(f"torch.serialization._get_layout({name!r:.40})")
    return _LAYOUTS[name]


def _array_to_fill(
    limits: Limits, cls: Any, shape: Any, code: Any
) -> Unbuilt | LeftOut:
    if isinstance(cls, Unknown):
        return LeftOut(cls.name)
    if not isinstance(cls, Named) or cls.name != "numpy.ndarray":
        raise Refused("numpy.core.multiarray._reconstruct of another class")
    return arrays.UnbuiltArray(limits)


def _default_dict(limits: Limits, factory: Any = None, *content: Any) -> defaultdict:
    if isinstance(factory, Unknown):
        factory = None
    name = getattr(factory, "name", None)
    if name not in FACTORIES or (name is None and factory is not None):
        raise Refused(f"collections.defaultdict of {factory!r:.40}")
    return defaultdict(FACTORIES[name], *(_filled(dict, c, limits) for c in content))


# By name: a function of the limits and of the call's arguments.
CALLS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": lambda limits, text, encoding: _bytes(text, encoding, limits),
    "argparse.Namespace": lambda limits: argparse.Namespace(),
    "builtins.bytearray": _bytearray,
    "builtins.bytes": lambda limits: b"",  # protocol 2 writes empty bytes so
    "builtins.complex": _plain("builtins.complex", complex),
    "builtins.frozenset": lambda limits, c=(): _filled(frozenset, c, limits),
    "builtins.getattr": lambda limits, owner, name: _attribute(owner, name),
    "builtins.set": lambda limits, content=(): _filled(set, content, limits),
    "builtins.slice": _slice,
    "collections.Counter": lambda limits, c=(): _filled(Counter, c, limits),
    "collections.OrderedDict": lambda limits, c=(): _filled(OrderedDict, c, limits),
    "collections.defaultdict": _default_dict,
    "copyreg._reconstructor": lambda limits, cls, base, state: _instance(cls),
    "mmengine.config.config.ConfigDict": lambda limits, content=(): _config_dict(
        _filled(dict, content, limits), limits
    ),
    "mmengine.logging.history_buffer.HistoryBuffer": _UnbuiltHistory,
    "numpy._core.multiarray._reconstruct": _array_to_fill,
    "numpy._core.multiarray.scalar": lambda limits, dtype, content: arrays.number(
        dtype, content, limits
    ),
    "numpy._core.numeric._frombuffer": lambda limits, content, dtype, shape, order: (
        arrays.array(content, dtype, shape, order, limits)
    ),
    "numpy.dtype": lambda limits, *arguments: arrays.UnbuiltDtype(*arguments),
    "pathlib.Path": _path,
    "pathlib.PosixPath": _path,
    "pathlib.PurePosixPath": _path,
    "pathlib.WindowsPath": _windows_path,
    "torch.Size": _size,
    "torch.device": _plain("torch.device", torch.device),
    "torch.serialization._get_layout": lambda limits, name: _layout(name),
    # torch.__version__, a str with another comparison
    "torch.torch_version.TorchVersion": _plain("torch.torch_version", str),
    # What is left out are attributes that somebody has set on a parameter.
    "torch._utils._rebuild_parameter_with_state": lambda limits, *arguments: (
        tensors.parameter(*arguments[:3])
    ),
    "torch._utils._rebuild_parameter": lambda limits, *arguments: tensors.parameter(
        *arguments
    ),
}
_HISTORY = "mmengine.logging.history_buffer.HistoryBuffer"
ONE_CYCLE = "mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler"
# Methods that objects of mmengine have as attributes. The result has their names: it is
# the object in the running program that has the methods.
METHODS = {
    *(
        f"{_HISTORY}.{name}"
        for name, value in vars(HistoryBuffer).items()
        if callable(value) and not name.startswith("_")
    ),
    f"{ONE_CYCLE}._annealing_cos",
    f"{ONE_CYCLE}._annealing_linear",
}
