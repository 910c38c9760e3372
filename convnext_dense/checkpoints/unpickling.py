"""Unpickle a file without running code from it.

A ``.pth`` file is a pickle, and a pickle names the functions that rebuild its content.
This module allows only functions that rebuild tensors, arrays, mmengine's records and
the settings that training scripts store beside the weights. It refuses any other before
it is called. torch's ``weights_only=True`` does the same; this module does it on every
torch version, and with the types that mmengine writes. The classic mmengine cannot read
its own checkpoints under torch 2.6 and later, and the maintained one unpickles without
restriction after a refusal.
"""

import os
import pickle
import re
import types
from typing import Any, BinaryIO

import torch
from mmengine.logging import HistoryBuffer

TRUST = "CONVNEXT_DENSE_TRUST_CHECKPOINT"

_DTYPES = {
    f"torch.{name}" for name, value in vars(torch).items() if type(value) is torch.dtype
}
_ALLOWED = _DTYPES | {
    "argparse.Namespace",
    "builtins.bytearray",
    "builtins.complex",
    "builtins.set",
    "builtins.slice",
    "_codecs.encode",
    "collections.Counter",
    "collections.OrderedDict",
    "collections.defaultdict",
    "mmengine.config.config.ConfigDict",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.dtype",
    "numpy.ndarray",
    "pathlib.Path",
    "pathlib.PosixPath",
    "torch.Size",
    "torch.Tensor",
    "torch.device",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout",
    "torch.storage.TypedStorage",
    "torch.storage.UntypedStorage",
}
# NumPy 2 moved numpy.core to numpy._core; files name either.
_NUMPY = re.compile(
    r"numpy\._?core\.(multiarray\._reconstruct|multiarray\.scalar|"
    r"numeric\._frombuffer)|numpy\.dtypes\.\w+DType"
)
_STORAGE = re.compile(r"torch\.(cuda\.)?\w*Storage")


class Refused(pickle.UnpicklingError):
    """The file names a function that is not allowed; ``str`` of this is its name."""


def _history_buffer_method(owner: type, name: str) -> Any:
    # HistoryBuffer pickles its statistics as getattr(HistoryBuffer, 'mean').
    if owner is not HistoryBuffer or name.startswith("_"):
        raise Refused(f"builtins.getattr({owner!r}, {name!r})")
    return getattr(owner, name)


class _Unpickler(pickle.Unpickler):
    allowed = frozenset(_ALLOWED)

    def find_class(self, module: str, name: str) -> Any:
        if module == "pathlib._local":  # written by Python 3.13, unknown to 3.12
            module = "pathlib"
        full = f"{module}.{name}"
        if full in ("builtins.getattr", "__builtin__.getattr"):
            return _history_buffer_method
        if (
            full in self.allowed
            or full.replace("__builtin__", "builtins") in self.allowed
            or _NUMPY.fullmatch(full)
            or _STORAGE.fullmatch(full)
        ):
            return super().find_class(module, name)
        raise Refused(full)


class _BatchUnpickler(_Unpickler):
    allowed = _Unpickler.allowed | {
        "builtins.bytes",
        "mmdet.structures.bbox.horizontal_boxes.HorizontalBoxes",
        "mmdet.structures.det_data_sample.DetDataSample",
        "mmdet.structures.mask.structures.BitmapMasks",
        "mmdet.structures.mask.structures.PolygonMasks",
        "mmengine.structures.instance_data.InstanceData",
        "mmengine.structures.pixel_data.PixelData",
        "mmseg.structures.seg_data_sample.SegDataSample",
    }


def _module(unpickler: type) -> types.SimpleNamespace:
    """A ``pickle_module`` for torch.load that unpickles with ``unpickler``."""
    return types.SimpleNamespace(
        __name__="pickle",
        Unpickler=unpickler,
        load=lambda file, **kwargs: unpickler(file, **kwargs).load(),
    )


CHECKPOINT, BATCH = _module(_Unpickler), _module(_BatchUnpickler)


def trusted() -> bool:
    """Whether the user has asked for unrestricted unpickling."""
    return os.environ.get(TRUST) == "1"


def unpickle(
    file: str | BinaryIO,
    map_location: Any = "cpu",
    pickle_module: Any = CHECKPOINT,
    mmap: bool = False,
) -> Any:
    """``torch.load`` with the functions a checkpoint needs, or all if ``trusted()``.

    Args:
        file: a path or a binary file object.
        map_location: the device of the tensors, as in ``torch.load``.
        pickle_module: ``CHECKPOINT``, or ``BATCH`` for a file with images and their
            ground truth.
        mmap: read tensors when they are used; for a path to a file of torch's zip
            format.

    Raises:
        Refused: the file names another function. No code of it was run.
    """
    return torch.load(
        file,
        map_location=map_location,
        pickle_module=pickle if trusted() else pickle_module,
        weights_only=False,
        mmap=mmap,
    )
