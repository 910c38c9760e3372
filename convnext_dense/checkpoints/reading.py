"""Read a checkpoint file of any format, without running code from it."""

import io
import mmap
import os
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from mmengine import fileio
from mmengine.logging import print_log
from torch import Tensor, nn

from convnext_dense.errors import InputError, printable
from convnext_dense.utils import files
from convnext_dense.utils.text import few, reason

from . import safetensors_file, torch_legacy, torch_zip
from .other_formats import PIECE, file_mistake
from .sources import SCHEMES, locate, shards
from .unpickling import (
    TRUST,
    BatchTable,
    CheckpointTable,
    Refused,
    WholeModel,
    report,
    require_built,
    trusted,
)

_TAR = b"ustar"  # at byte 257


def read(source: str | os.PathLike, map_location: Any = "cpu") -> Any:
    """The content of a checkpoint: ``.pth``, ``.safetensors`` or an index of shards.

    Objects that no code of this package knows are left out: an
    ``unpickling.Named`` takes the place of each, and the log says so.

    >>> torch.save({"state_dict": {"weight": torch.ones(2)}}, "run.pth")
    >>> read("run.pth")["state_dict"]["weight"]  # or "timm://...", "hf://...", a URL
    tensor([1., 1.])

    Args:
        source: whatever ``locate`` takes, or a path that one of mmengine's file
            backends opens, such as ``s3://BUCKET/FILE``.
        map_location: the device of the tensors, as in ``torch.load``. With 'meta' they
            have no content; that of zip archives is compared with its checksums.

    Raises:
        InputError: there is no such file, it is damaged, or it asks for something that
            no checkpoint needs.
    """
    source = os.fspath(source)
    scheme, separator, _ = source.partition("://")
    if separator and scheme not in SCHEMES:
        try:
            file = io.BytesIO(fileio.get(source))
        except KeyError as error:
            raise InputError(
                f"{source}: mmengine has no file backend for {scheme}://; give a file, "
                f"a URL, or a name with one of {', '.join(SCHEMES[2:])} before ://"
            ) from error
        except Exception as error:  # a file backend can raise anything
            raise InputError(f"{source} could not be opened: {error}") from error
        return _read_file(file, source, map_location)
    path = locate(source)
    if path.suffix == ".json":
        return _read_shards(path, map_location)
    return _read_path(path, map_location)


def as_dict(content: Any, source: str | os.PathLike | None) -> Mapping:
    """The content of a checkpoint, if it is weights or a dict with weights in it.

    Args:
        source: the checkpoint's name, for messages.

    Raises:
        InputError: it is something else.
    """
    if isinstance(content, Mapping):
        return content
    message = f"{source} holds a {type(content).__name__}, not weights"
    if isinstance(content, list | tuple):
        dicts = [n for n, entry in enumerate(content) if isinstance(entry, Mapping)]
        if dicts:
            message += (
                ". Save the dict in it that has them: torch.save(torch.load("
                f"{str(source)!r}, 'cpu')[{dicts[0]}], 'weights.pth')"
            )
    raise InputError(message)


def read_batch(file: str) -> dict:
    """The content of a file with one batch, which ``engine.watch.batches`` writes.

    Raises:
        InputError: there is no such file, or it holds no batch.
    """
    content = _read_path(locate(file), "cpu", BatchTable)
    if not isinstance(content, Mapping) or "batch" not in content:
        raise InputError(
            f"--replay: {file} holds no batch; not_finite/iter_N.pth in a work dir does"
        )
    require_built(content, "", f"--replay: {file}")
    return dict(content)


def _read_shards(index: Path, map_location: Any) -> dict[str, Tensor]:
    names = shards(index)
    missing = [name for name in names if not os.path.isfile(index.parent / name)]
    if missing:
        raise InputError(
            f"{index} names {len(names)} files and {len(missing)} of them "
            f"{'is' if len(missing) == 1 else 'are'} missing: {few(missing)}"
        )
    weights: dict[str, Tensor] = {}
    for name in names:
        path = index.parent / name
        weights.update(as_dict(_read_path(path, map_location), path))
    return weights


def _read_path(
    path: Path, map_location: Any, table: type[CheckpointTable] = CheckpointTable
) -> Any:
    with files.open_regular(path) as file:
        return _read_file(file, path, map_location, table)


def _read_file(
    file: BinaryIO,
    name: str | Path,
    map_location: Any,
    table: type[CheckpointTable] = CheckpointTable,
) -> Any:
    """The content of an open file.

    Args:
        name: of the file, for messages.
        table: what the file may hold, ``CheckpointTable`` or ``BatchTable``.
    """
    try:
        content = _content(file, name, map_location, table)
    except WholeModel as model:
        raise InputError(whole_model(name, str(model))) from model
    except Refused as refused:
        raise InputError(
            f"{name} was not read: it asks for {refused}, which no checkpoint needs. "
            "Loading it could run code; none was run. If you trust its author, use "
            f"--trust-checkpoint, or {TRUST}=1 in the environment"
        ) from refused
    except Exception as error:  # a damaged file can raise anything
        raise InputError(
            f"{name} is damaged or not a checkpoint: {str(error) or reason(error)}"
        ) from error
    if left := report(content):
        print_log(f"{name}: {left}", "current")
    return content


def _content(
    file: BinaryIO, name: str | Path, map_location: Any, table: type[CheckpointTable]
) -> Any:
    """``_read_file``, with the exceptions of the formats."""
    start = file.read(262)
    file.seek(0)
    if not start:
        raise EOFError("it is empty")
    if safetensors_file.is_safetensors(start):
        return safetensors_file.read(file, map_location)
    if trusted():
        print_log(f"{name} is trusted and may run code ({TRUST}=1)", "current")
        return _trusted(file, name, start, map_location)
    if os.fspath(name).endswith(PIECE):
        raise ValueError("it is a piece of a sharded checkpoint: name its folder")
    if start[:2] == b"PK":
        return torch_zip.read(file, map_location, table)
    if start[257:] == _TAR:
        raise Refused(
            "the format of PyTorch before 0.1.12 (a tar archive). To convert it, "
            "torch.load it where you trust it, and torch.save the result"
        )
    if start[:1] == torch_legacy.FIRST:
        return torch_legacy.read(_mapped(file), map_location, table)
    raise ValueError(
        file_mistake(start, name) or "neither torch.save nor safetensors has written it"
    )


def _trusted(file: BinaryIO, name: str | Path, start: bytes, map_location: Any) -> Any:
    """What Python's own unpickler makes of a file; of a model, its weights."""
    if start[:2] == b"PK":
        torch_zip.check(file)
        file.seek(0)
    elif start[:1] != torch_legacy.FIRST:
        if mistake := file_mistake(start, name):
            raise ValueError(mistake)
    elif not torch_legacy.is_legacy(start):
        return pickle.load(file)
    try:
        content = torch.load(file, map_location=map_location, weights_only=False)
    except (ImportError, AttributeError) as error:  # not where the file was written
        raise ValueError(
            f"it holds objects whose code is not installed ({error}). Install it, or "
            "leave out --trust-checkpoint: the weights are read without the objects"
        ) from error
    return content.state_dict() if isinstance(content, nn.Module) else content


def whole_model(source: str | Path, cls: str, keys: Iterable[str | int] = ()) -> str:
    """What to do with a checkpoint that holds a model with its code.

    Args:
        source: the checkpoint's name.
        cls: the name of the model's class.
        keys: that lead to the model in the checkpoint; none if it is the content.
    """
    place = "".join(f"[{key!r}]" for key in keys)
    return (
        f"{source} holds a whole model ({printable(cls, 200)}), which only its own "
        "code can build. Save its weights alone, where that code is installed and if "
        "you trust its author:\n"
        "  import torch\n"
        f"  model = torch.load({str(source)!r}, 'cpu', weights_only=False){place}\n"
        "  torch.save(model.state_dict(), 'weights.pth')\n"
        f"Or use --trust-checkpoint, or {TRUST}=1 in the environment, which does the "
        "same"
    )


def _mapped(file: BinaryIO) -> Any:
    """The bytes of a file, from the disk when they are used."""
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # in memory, or on a file system that cannot map
        return file.read()
