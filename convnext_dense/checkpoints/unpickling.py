"""Unpickle without letting a file run code.

A ``.pth`` file is a pickle, and a pickle names the functions that rebuild it.
Here it may name only those that rebuild tensors, arrays, mmengine's own records
and what training scripts put beside the weights; anything else is refused before
it is called. This is what torch's ``weights_only=True`` does, on every torch
version, and with the types that mmengine writes: the classic mmengine cannot read
its own checkpoints under torch 2.6 and later, and the maintained one answers a
refusal by unpickling without restriction.
"""

import os
import pickle
import re
import types

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
    """The file asks for something that is not on the list; str() names it."""


def _history_buffer_method(owner, name):
    # HistoryBuffer pickles its statistics as getattr(HistoryBuffer, 'mean').
    if owner is not HistoryBuffer or name.startswith("_"):
        raise Refused(f"builtins.getattr({owner!r}, {name!r})")
    return getattr(owner, name)


class _Unpickler(pickle.Unpickler):
    allowed = frozenset(_ALLOWED)

    def find_class(self, module, name):
        if module == "pathlib._local":  # so Python 3.13 writes, and 3.12 has it not
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
    """What torch.load asks of its ``pickle_module``."""
    return types.SimpleNamespace(
        __name__="pickle",
        Unpickler=unpickler,
        load=lambda file, **kwargs: unpickler(file, **kwargs).load(),
    )


CHECKPOINT, BATCH = _module(_Unpickler), _module(_BatchUnpickler)


def trusted() -> bool:
    """Whether the user has asked for unrestricted unpickling."""
    return os.environ.get(TRUST) == "1"


def unpickle(file, map_location="cpu", kind=CHECKPOINT, mmap=False):
    """``torch.load``, restricted to what a checkpoint needs unless ``trusted()``.

    Args:
        file: a path or a binary file object.
        kind: of file, ``CHECKPOINT`` or ``BATCH``, which has images and their truth.
        mmap: read tensors when they are used; for a path of torch's zip format.

    Raises:
        Refused: it asks for something else; nothing of it was run.
    """
    return torch.load(
        file,
        map_location=map_location,
        pickle_module=pickle if trusted() else kind,
        weights_only=False,
        mmap=mmap,
    )
