"""Read a checkpoint file of any format, without running code from it."""

import io
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from mmengine import fileio
from mmengine.logging import print_log
from torch import Tensor

from convnext_dense.errors import InputError

from .sources import SCHEMES, locate, shards
from .unpickling import BATCH, CHECKPOINT, TRUST, Refused, trusted, unpickle


def read(source: str | os.PathLike, map_location: Any = "cpu") -> Any:
    """The content of a checkpoint: ``.pth``, ``.safetensors`` or an index of shards.

    >>> torch.save({"state_dict": {"weight": torch.ones(2)}}, "run.pth")
    >>> read("run.pth")["state_dict"]["weight"]  # or "timm://...", "hf://...", a URL
    tensor([1., 1.])

    Args:
        source: whatever ``locate`` takes, or a path that one of mmengine's file
            backends opens, such as ``s3://BUCKET/FILE``.
        map_location: the device of the tensors, as in ``torch.load``.

    Raises:
        InputError: there is no such file, it is damaged, or its pickle names a
            function that no checkpoint needs.
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
    with path.open("rb") as file:
        return _read_file(file, path, map_location)


def read_batch(file: str) -> dict:
    """The content of a file with one batch, which ``engine.watch.batches`` writes.

    Raises:
        InputError: there is no such file, or it holds no batch.
    """
    path = locate(file)
    with path.open("rb") as stream:
        content = _read_file(stream, path, "cpu", BATCH)
    if not isinstance(content, Mapping) or "batch" not in content:
        raise InputError(
            f"--replay: {file} holds no batch; not_finite/iter_N.pth in a work dir does"
        )
    return dict(content)


def _read_shards(index: Path, map_location: Any) -> dict[str, Tensor]:
    names = shards(index)
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise InputError(
            f"{index} names {len(names)} files and {len(missing)} of them "
            f"{'is' if len(missing) == 1 else 'are'} missing: {', '.join(missing)}"
        )
    weights: dict[str, Tensor] = {}
    for name in names:
        path = index.parent / name
        with path.open("rb") as file:
            shard = _read_file(file, path, map_location)
        if not isinstance(shard, Mapping):
            raise InputError(f"{path} holds a {type(shard).__name__}, not weights")
        weights.update(shard)
    return weights


def _read_file(
    file: BinaryIO,
    name: str | Path,
    map_location: Any,
    pickle_module: Any = CHECKPOINT,
) -> Any:
    """The content of an open file.

    Args:
        name: of the file; a ``Path`` if it is on this disk.
        pickle_module: what the file may hold, ``CHECKPOINT`` or ``BATCH``.
    """
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
        damaged = _damaged_member(file) if start[:2] == b"PK" else None
        if damaged:
            raise EOFError(f"{damaged} in it has changed since it was written")
        file.seek(0)
        return unpickle(file, map_location, pickle_module)
    except Refused as refused:
        raise InputError(
            f"{name} was not read: it asks for {refused}, which no checkpoint needs. "
            "Loading it could run code; none was run. If you trust its author, use "
            f"--trust-checkpoint, or {TRUST}=1 in the environment"
        ) from refused
    except Exception as error:  # a damaged file can raise anything
        raise InputError(
            f"{name} is damaged or not a checkpoint: {str(error) or repr(error)}"
        ) from error


def _is_torchscript(file: BinaryIO) -> bool:
    """Whether the archive is a program that torch.jit would run."""
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _damaged_member(file: BinaryIO) -> str | None:
    """The first member of a zip archive whose content does not match its checksum.

    torch.load ignores the checksums, and would load damaged weights.
    """
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if not member.CRC:  # written with set_crc32_options(False)
                continue
            try:
                with archive.open(member) as stream:
                    while stream.read(2**20):
                        pass
            except (zipfile.BadZipFile, zlib.error):
                return member.filename
    return None
