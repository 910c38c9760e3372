"""Read a checkpoint file, whatever its format, without letting it run code."""

import io
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from mmengine import fileio
from mmengine.logging import print_log
from torch import Tensor

from convnext_dense.errors import InputError

from .sources import SCHEMES, locate, shards
from .unpickling import BATCH, CHECKPOINT, TRUST, Refused, trusted, unpickle


def read(source: str | os.PathLike, map_location="cpu"):
    """The content of a checkpoint: ``.pth``, ``.safetensors`` or an index of shards.

    Args:
        source: whatever ``locate`` takes, or a path that one of mmengine's file
            backends opens, such as ``s3://``.

    Raises:
        InputError: there is no such file, it is damaged, or it asks for more
            than a checkpoint needs.
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
        except Exception as error:  # whatever a file backend can raise
            raise InputError(f"{source} could not be opened: {error}") from error
        return _read_file(file, source, map_location)
    path = locate(source)
    if path.suffix == ".json":
        return _read_shards(path, map_location)
    with path.open("rb") as file:
        return _read_file(file, path, map_location)


def read_batch(file: str) -> dict:
    """The content of a file of one batch, which ``watching.batches`` writes.

    Raises:
        InputError: there is no such file, or it is another.
    """
    path = locate(file)
    with path.open("rb") as stream:
        content = _read_file(stream, path, "cpu", BATCH)
    if not isinstance(content, Mapping) or "batch" not in content:
        raise InputError(
            f"--replay: {file} holds no batch; not_finite/iter_N.pth in a work dir does"
        )
    return content


def _read_shards(index: Path, map_location) -> dict[str, Tensor]:
    names = shards(index)
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise InputError(
            f"{index} names {len(names)} files and {len(missing)} of them "
            f"{'is' if len(missing) == 1 else 'are'} missing: {', '.join(missing)}"
        )
    weights = {}
    for name in names:
        path = index.parent / name
        with path.open("rb") as file:
            part = _read_file(file, path, map_location)
        if not isinstance(part, Mapping):
            raise InputError(f"{path} holds a {type(part).__name__}, not weights")
        weights.update(part)
    return weights


def _read_file(file, name, map_location, kind=CHECKPOINT):
    if trusted():
        print_log(f"{name} is trusted and may run code ({TRUST}=1)", "current")
    try:
        start = file.read(9)
        file.seek(0)
        if not start:
            raise EOFError("it is empty")
        if start[:2] == b"PK" and not zipfile.is_zipfile(file):
            raise EOFError("it is cut short")
        if start[8:] == b"{":  # JSON after a length of eight bytes: safetensors
            weights = (
                safetensors.torch.load_file(name)
                if isinstance(name, Path)
                else safetensors.torch.load(file.read())
            )
            if isinstance(map_location, str | torch.device):
                weights = {n: tensor.to(map_location) for n, tensor in weights.items()}
            return weights
        if start[:2] == b"PK" and not trusted() and _is_torchscript(file):
            raise Refused("torch.jit (it is a TorchScript program)")
        damaged = _damaged_part(file) if start[:2] == b"PK" else None
        if damaged:
            raise EOFError(f"{damaged} in it has changed since it was written")
        file.seek(0)
        return unpickle(file, map_location, kind)
    except Refused as refused:
        raise InputError(
            f"{name} was not read: it asks for {refused}, which no checkpoint needs; "
            "loading it could run code. Nothing of it was run. If you trust whoever "
            f"made it: --trust-checkpoint, or {TRUST}=1 in the environment"
        ) from refused
    except Exception as error:  # a damaged file can raise anything
        raise InputError(
            f"{name} is damaged or not a checkpoint: {str(error) or repr(error)}"
        ) from error


def _is_torchscript(file) -> bool:
    """A program that torch.jit would run, in the file format of a checkpoint."""
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _damaged_part(file) -> str | None:
    """The first part of a zip archive whose content is not that of its checksum.

    torch.load compares none, and takes weights for what the damage made of them.
    """
    with zipfile.ZipFile(file) as archive:
        for part in archive.infolist():
            if not part.CRC:  # torch.serialization.set_crc32_options(False)
                continue
            try:
                with archive.open(part) as stream:
                    while stream.read(2**20):
                        pass
            except (zipfile.BadZipFile, zlib.error):
                return part.filename
    return None
