"""Lists what a checkpoint, or a file with one batch, may ask for.

Names are those in the file; ``objects`` builds what they stand for.
"""

import argparse
import importlib
from collections import OrderedDict
from typing import Any

from convnext_dense.errors import printable

from . import tensors
from .limits import Limits
from .names import Named, Unknown, left_out, unknown
from .objects import (
    CALLS,
    FACTORIES,
    METHODS,
    ONE_CYCLE,
    UnbuiltRecord,
    set_attributes,
    versions,
)
from .refused import Refused

# What Python 2, NumPy before 2.0 and Python 3.13 call the same.
_RENAMED = (
    ("__builtin__.long", "builtins.int"),
    ("__builtin__.unicode", "builtins.str"),
    ("__builtin__.", "builtins."),
    ("copy_reg.", "copyreg."),
    ("numpy.core.", "numpy._core."),
    ("pathlib._local.", "pathlib."),
)
# Named as arguments of the calls.
_NAMED = {"numpy.ndarray", ONE_CYCLE, *filter(None, FACTORIES)}

# Classes of batches: objects with attributes.
_SAMPLES = (
    "mmdet.structures.bbox.horizontal_boxes.HorizontalBoxes",
    "mmdet.structures.det_data_sample.DetDataSample",
    "mmdet.structures.mask.structures.BitmapMasks",
    "mmdet.structures.mask.structures.PolygonMasks",
    "mmengine.structures.instance_data.InstanceData",
    "mmengine.structures.pixel_data.PixelData",
    "mmseg.structures.seg_data_sample.SegDataSample",
)


class CheckpointTable:
    """What a checkpoint may ask for. One table serves one file.

    Attributes:
        records: the classes of ours that it has made objects of.
    """

    def __init__(self) -> None:
        self.records: tuple[type, ...] = ()
        made = tensors.Tensors()
        self._calls = CALLS | {
            "torch._utils._rebuild_tensor": lambda limits, *a: made.tensor(*a[:4]),
            "torch._utils._rebuild_tensor_v2": lambda limits, *a: made.tensor(*a[:6]),
            "torch._utils._rebuild_tensor_v3": lambda limits, *a: made.tensor(*a[:7]),
            "torch._tensor._rebuild_from_type_v2": self._plain_tensor,
        }

    def constant(self, name: str) -> Any:
        """As ``machine.Table``."""
        for old, new in _RENAMED:
            if name.startswith(old):
                name = new + name.removeprefix(old)
        if name in tensors.DTYPES:
            return tensors.DTYPES[name]
        if name in METHODS:
            return name
        if name in self._calls or name in _NAMED or tensors.storage_dtype(name):
            return Named(name)
        return self._other(name)

    def _other(self, name: str) -> Unknown:
        """What stands for a name that is not listed."""
        try:
            return unknown(name)
        except Refused as refused:
            raise Refused(printable(name, 200)) from refused

    def _plain_tensor(
        self, limits: Limits, function: Any, cls: Any, arguments: Any, state: Any
    ) -> Any:
        """A tensor without its attributes, or of a subclass, as a plain tensor."""
        if not isinstance(function, Named) or type(arguments) is not tuple:
            raise Refused("a tensor that no function of torch makes")
        if not function.name.startswith("torch._utils._rebuild_"):
            raise Refused(f"a tensor made by {function.name}")
        if isinstance(function, Unknown):
            return left_out(function)
        return self.call(function.name, arguments, limits)

    def call(self, name: str, arguments: tuple, limits: Limits) -> Any:
        """As ``machine.Table``."""
        function = self._calls.get(name)
        if function is None:
            raise Refused(f"a call of {name}")
        return function(limits, *arguments)

    def change(self, value: object, state: Any) -> None:
        """As ``machine.Table``."""
        if type(value) is OrderedDict:
            metadata = state.get("_metadata") if isinstance(state, dict) else None
            value._metadata = versions(metadata)  # type: ignore[attr-defined]
        elif type(value) is argparse.Namespace:
            set_attributes(value, state)
        else:
            raise Refused(f"a change of a {type(value).__name__}")


class BatchTable(CheckpointTable):
    """What a file with one batch may ask for, too: images and their ground truth."""

    def constant(self, name: str) -> Any:
        """As ``machine.Table``."""
        if name in _SAMPLES:
            return Named(name)
        return super().constant(name)

    def _other(self, name: str) -> Unknown:
        """Refuse it: a batch is used as a whole."""
        raise Refused(printable(name, 200))

    def call(self, name: str, arguments: tuple, limits: Limits) -> Any:
        """As ``machine.Table``."""
        if name not in _SAMPLES:
            return super().call(name, arguments, limits)
        if arguments:
            raise Refused(f"{name} with arguments")
        module, _, plain = name.rpartition(".")
        cls = getattr(importlib.import_module(module), plain)
        self.records = tuple({*self.records, cls})
        return UnbuiltRecord(cls)
