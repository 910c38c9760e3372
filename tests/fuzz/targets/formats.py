"""The formats of checkpoint files: writes each, and changes each by its grammar."""

import functools
import io
import json
import os
import pickle
import struct
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import safetensors.torch
import torch

from ..case import Files
from ..mutations import archives, json_text, pickles, plain_bytes, safetensors_files
from ..mutations.values import change as change_tree
from ..mutations.values import word


def zip_file(content: Any) -> bytes:
    """torch.save's format since 1.6."""
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def legacy_file(content: Any) -> bytes:
    """torch.save's format before 1.6: pickles, then the storages."""
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def tar_file(content: Mapping[str, torch.Tensor]) -> bytes:
    """torch.save's format before 0.2: a tar archive. Only of float tensors."""
    tensors = [w.float().contiguous() for w in content.values()]

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            known = [i for i, tensor in enumerate(tensors) if tensor is value]
            return str(known[0]) if known else None

    main = io.BytesIO()
    Pickler(main, 2).dump(dict(zip(content, tensors, strict=True)))
    storages = io.BytesIO()
    table = io.BytesIO()
    pickle.dump(len(tensors), storages, 2)
    pickle.dump(len(tensors), table, 2)
    for number, tensor in enumerate(tensors):
        pickle.dump((str(number), "cpu", torch.FloatStorage), storages, 2)
        storages.write(struct.pack("<q", tensor.numel()) + tensor.numpy().tobytes())
        pickle.dump((str(number), str(number), torch.FloatTensor), table, 2)
        sizes = [*tensor.shape, *tensor.stride(), 0]
        table.write(struct.pack(f"<i4x{len(sizes)}q", tensor.dim(), *sizes))
    system = pickle.dumps(
        dict(protocol_version=1000, little_endian=True, type_sizes=dict(long=4)), 2
    )
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in (
            ("sys_info", system),
            ("pickle", main.getvalue()),
            ("storages", storages.getvalue()),
            ("tensors", table.getvalue()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def safetensors_file(content: Mapping[str, torch.Tensor]) -> bytes:
    """The format of the safetensors library."""
    tensors = {name: weight.contiguous() for name, weight in content.items()}
    return safetensors.torch.save(tensors, {"format": "pt"})


def index_and_shards(content: Mapping[str, torch.Tensor], suffix: str) -> Files:
    """Two shards and the index that names them."""
    names = list(content)
    shards = {"a" + suffix: names[::2], "b" + suffix: names[1::2]}
    dump = safetensors_file if suffix == ".safetensors" else zip_file
    files: Files = {
        shard: dump({name: content[name] for name in its})
        for shard, its in shards.items()
    }
    weight_map = {name: shard for shard, its in shards.items() for name in its}
    index = dict(metadata=dict(total_size=1), weight_map=weight_map)
    return {"model.index.json": json.dumps(index).encode(), **files}


@functools.cache
def programs() -> list[bytes]:
    """A TorchScript archive and a torch.package, which hold code."""
    script = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), script)
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "p.pt")
        with torch.package.PackageExporter(file) as exporter:
            exporter.save_source_string("m", "import os\n")
            exporter.save_pickle("model", "model.pkl", {"a": torch.ones(1)})
        package = Path(file).read_bytes()
    return [script.getvalue(), package]


def change(data: bytes, rng: Random, corpus: list[bytes]) -> bytes:
    """Change a checkpoint file of any format by its grammar, or bytes of it."""
    try:
        if rng.random() < 0.12:
            return plain_bytes.change(data, rng, corpus)
        if data[:2] == b"PK":
            return archives.change_zip(data, rng, _change_pickle)
        if data[8:9] == b"{":
            return safetensors_files.change_file(data, rng)
        if data[:1] == b"\x80":
            return _change_legacy(data, rng)
        if data[257:262] == b"ustar":
            return archives.change_tar(data, rng, _change_pickle)
    except Exception:  # an earlier mutation has made it unreadable for this one, too
        pass
    return plain_bytes.change(data, rng, corpus)


def _change_pickle(data: bytes, rng: Random) -> bytes:
    """Change the first pickle in ``data``; what follows stays."""
    try:
        end = pickles.length(data)
    except Exception:
        return plain_bytes.change(data, rng)
    return pickles.change(data[:end], rng, rng.choice((1, 1, 2, 3))) + data[end:]


def _change_legacy(data: bytes, rng: Random) -> bytes:
    """Change one of the five pickles of a legacy file, or drop it, or what follows."""
    rest, found = data, []
    while len(found) < 5:
        end = pickles.length(rest)
        found.append(rest[:end])
        rest = rest[end:]
    place = rng.choice((0, 1, 2, 3, 3, 3, 3, 3, 4, 4))
    match rng.randrange(10):
        case 0:
            del found[place]
        case 1:
            found[4] = pickle.dumps(rng.choice(([], ["1"], None, [1], ["0"] * 9)), 2)
        case 2:
            rest = plain_bytes.change(rest, rng)
        case _:
            found[place] = pickles.change(found[place], rng, rng.choice((1, 1, 2, 3)))
    return b"".join(found) + rest


def change_index(data: bytes, rng: Random) -> bytes:
    """Change the index of shards."""
    try:
        index = json.loads(data)
        if rng.random() < 0.5:
            names = index["weight_map"]
            names[rng.choice(list(names))] = rng.choice(
                ("../a.bin", "/etc/hostname", "model.index.json", ".", "", word(rng), 1)
            )
        else:
            index = change_tree(index, rng)
        text = json_text.dump(index, rng)
    except Exception:
        return plain_bytes.change(data, rng)
    if rng.random() < 0.2:
        text = json_text.change_text(text, rng)
    return text.encode("utf-8", "surrogatepass")
