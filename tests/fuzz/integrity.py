"""Tells whether classes, functions and dtypes are still what they were.

A pickle's BUILD can set attributes of anything that it may name. So a file that was
read can change what the next lines of the program do.
"""

import argparse
import builtins
import collections
import os
import pathlib
import pickle
import types
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

import convnext_dense
from convnext_dense import errors
from convnext_dense.checkpoints import loading, reading, recognition, unpickling
from convnext_dense.utils import files, text

# Everything whose attributes are compared: what files may name, and the classes and
# modules beside it that an attacker would choose.
_OBJECTS: list[Any] = [
    *(torch.Size, torch.Tensor, torch.nn.Parameter, torch.nn.Module),
    *(torch.storage.TypedStorage, torch.storage.UntypedStorage, torch.Generator),
    *(torch.FloatStorage, torch.LongStorage, torch.ByteStorage, torch.HalfStorage),
    *(torch._utils, torch.serialization, torch.storage, torch.load, torch.save),
    *(ConfigDict, Config, HistoryBuffer, MessageHub, CheckpointLoader),
    *(mmengine_checkpoint, argparse.Namespace, collections, pathlib, pickle, os),
    *(collections.OrderedDict, collections.Counter, collections.defaultdict),
    *(pathlib.Path, pathlib.PurePath, pathlib.PosixPath, builtins, np, errors),
    *(errors.InputError, loading, reading, recognition, unpickling, files, text),
    *(convnext_dense.ConvNeXt, np.ndarray, np.dtype, HistoryBuffer._statistics_methods),
]
_CODES = "?bBhHiIlLqQefdgFDGOSUVMm"
# Caches that using a class fills.
_CACHES = {
    *("__annotations__", "__abstractmethods__", "_abc_impl", "__warningregistry__"),
    *("__slotnames__", "__weakref__"),
}


def fingerprint() -> dict[str, Any]:
    """Numbers that change when one of the objects does, by the object's name."""
    seen: dict[str, Any] = {}
    functions: list[Any] = []
    for thing in _OBJECTS:
        content = thing if isinstance(thing, dict) else vars(thing)
        name = getattr(thing, "__name__", "a table")
        seen[f"{type(thing).__name__} {name}"] = {
            key: id(value) for key, value in content.items() if key not in _CACHES
        }
        functions += [v for v in content.values() if isinstance(v, types.FunctionType)]
    for function in functions:
        parts = (function.__code__, function.__defaults__, function.__kwdefaults__)
        seen[f"{function.__module__}.{function.__qualname__} {id(function)}"] = (
            *map(id, parts),
            id(function.__name__),
        )
    for code in _CODES:
        dtype = np.dtype(code)
        seen[f"dtype {code} {code}"] = (
            *(dtype.num, dtype.kind, dtype.flags, dtype.itemsize, dtype.alignment),
            *(dtype.byteorder, dtype.names, dtype.metadata),
        )
    return seen


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs between two fingerprints, such as 'type Size.__name__'."""
    names = []
    for name in before.keys() | after.keys():
        old, new = before.get(name), after.get(name)
        if old == new or old is None or new is None:
            continue  # what has another function in its place is reported itself
        if isinstance(old, dict) and isinstance(new, dict):
            keys = [k for k in old.keys() | new.keys() if old.get(k) != new.get(k)]
            names += [f"{name}.{key}" for key in keys]
        else:
            names.append(name.rpartition(" ")[0])
    return sorted(names)
