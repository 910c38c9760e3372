"""Read a checkpoint without letting it run code.

A ``.pth`` file is a pickle, and a pickle names the functions that rebuild it.
Here it may name only those that rebuild tensors, arrays and mmengine's own
records; anything else is refused before it is called. This is what torch's
``weights_only=True`` does, on every torch version, and with the types that
mmengine puts beside the weights: the classic mmengine cannot read its own
checkpoints under torch 2.6 and later, and the maintained one answers a refusal
by unpickling without restriction.
"""

import os
import pickle
import re
import types
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_rank
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader

from ..errors import InputError

URL = re.compile(r"https?://")

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
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.dtype",
    "numpy.ndarray",
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


class _Refused(pickle.UnpicklingError):
    pass


def _history_buffer_method(owner, name):
    # HistoryBuffer pickles its statistics as getattr(HistoryBuffer, 'mean').
    if owner is not HistoryBuffer or name.startswith("_"):
        raise _Refused(f"builtins.getattr({owner!r}, {name!r})")
    return getattr(owner, name)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        full = f"{module}.{name}"
        if full in ("builtins.getattr", "__builtin__.getattr"):
            return _history_buffer_method
        if (
            full in _ALLOWED
            or full.replace("__builtin__", "builtins") in _ALLOWED
            or _NUMPY.fullmatch(full)
            or _STORAGE.fullmatch(full)
        ):
            return super().find_class(module, name)
        raise _Refused(full)


# What torch.load asks of its ``pickle_module``.
_restricted_pickle = types.SimpleNamespace(
    __name__="pickle",
    Unpickler=_Unpickler,
    load=lambda file, **kwargs: _Unpickler(file, **kwargs).load(),
)


def locate(source: str | os.PathLike) -> Path:
    """The local file of a checkpoint; a URL is downloaded once, into torch's cache.

    Raises:
        InputError: there is no such file, it cannot be downloaded, or it is
            neither a path nor an http(s) URL.
    """
    source = os.fspath(source)
    if URL.match(source):
        return _download(source)
    if "://" in source:
        raise InputError(f"{source}: give a file, or an http or https URL")
    path = Path(source).expanduser()
    if not path.is_file():
        raise InputError(
            f"no checkpoint at {path}" + (" (a folder)" if path.is_dir() else "")
        )
    return path


def _download(url: str) -> Path:
    target = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    trouble = None
    # Rank 0 first, then those on machines that do not share its disk.
    for first in (True, False):
        if (get_rank() == 0) is first and not target.is_file():
            print_log(f"downloading {url} to {target}", logger="current")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(url, str(target))
            except OSError as error:  # URLError and HTTPError are among these
                trouble = error
        barrier()
    if not target.is_file():
        raise InputError(
            f"the weights at {url} could not be downloaded"
            + (f" ({trouble})" if trouble else "")
            + f".\nDownload them where there is a network and put the file at {target},"
            " or name a local file:\n"
            "  --cfg-options model.backbone.init_cfg.checkpoint=FILE\n"
            "or start from scratch:\n"
            "  --cfg-options model.backbone.init_cfg=None"
        ) from trouble
    return target


def read(source: str | os.PathLike, map_location="cpu"):
    """The content of a checkpoint file or URL, unpickled with restriction.

    Raises:
        InputError: there is no such file, it is damaged, or it asks for more
            than a checkpoint needs.
    """
    path = locate(source)
    try:
        return torch.load(
            path,
            map_location=map_location,
            pickle_module=_restricted_pickle,
            weights_only=False,
        )
    except _Refused as refused:
        raise InputError(
            f"{path} was not read: it asks for {refused}, which no checkpoint needs; "
            "loading it could run code. Nothing of it was run"
        ) from refused
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(f"{path} is damaged or not a checkpoint: {error}") from error


def install() -> None:
    """Make mmengine read every local or downloaded checkpoint through ``read``."""

    def load_from_safe(filename, map_location=None):
        return read(filename, map_location)

    for prefix in ("", "http://", "https://"):
        CheckpointLoader.register_scheme(prefix, load_from_safe, force=True)
