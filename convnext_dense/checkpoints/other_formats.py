"""Names the formats of files and folders that are not read, and what to do instead.

People name these by mistake, or get them from other libraries.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from convnext_dense.utils.text import few

_OF_ANOTHER = (
    "the weights of another framework ({}). Give weights that PyTorch has saved: "
    "torch.save(model.state_dict(), FILE)"
)
_DOWNLOAD = "it is a page of the web: the download failed. Download the file again"
# First bytes.
_STARTS = {
    b"version https://git-lfs": "it is a pointer of Git LFS: run `git lfs pull`",
    b"\x1f\x8b": "it is compressed: unpack it with gunzip",
    b"BZh": "it is compressed: unpack it with bunzip2",
    b"\xfd7zXZ": "it is compressed: unpack it with unxz",
    b"\x28\xb5\x2f\xfd": "it is compressed: unpack it with unzstd",
    b"7z\xbc\xaf": "it is an archive: unpack it with 7z",
    b"Rar!": "it is an archive: unpack it with unrar",
    b"<": _DOWNLOAD,
    b"{": "it is JSON, without weights: give the file that has the weights",
    b"\x89HDF": "it holds " + _OF_ANOTHER.format("HDF5, as Keras writes it"),
    b"GGUF": "it holds " + _OF_ANOTHER.format("GGUF"),
    b"\x93NUMPY": "it holds a NumPy array, and not the weights of a model",
}
_TFLITE = b"TFL3"  # at byte 4
# ONNX: the version as field 1, then the field of the producer, the domain, ...
_ONNX = re.compile(rb"\x08[\x01-\x20][\x12\x1a\x22\x28\x32\x3a\x42]", re.DOTALL)
# MessagePack: a map of few entries, the first of which has text as its key.
_MSGPACK = re.compile(rb"[\x81-\x8f][\xa1-\xbf\xd9]")
_CHECKPOINTS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".tar", ".pkl")
PIECE = ".distcp"  # of a sharded checkpoint of torch.distributed.checkpoint
_OTHER_SUFFIXES = {
    ".index": _OF_ANOTHER.format("TensorFlow"),
    ".pb": _OF_ANOTHER.format("TensorFlow"),
    ".meta": _OF_ANOTHER.format("TensorFlow"),
    ".onnx": _OF_ANOTHER.format("ONNX"),
    ".msgpack": _OF_ANOTHER.format("Flax"),
    ".data-00000-of-00001": _OF_ANOTHER.format("TensorFlow"),
}


def file_mistake(start: bytes, name: str | os.PathLike) -> str | None:
    """What a file is that is neither a pickle nor an archive nor safetensors.

    Args:
        start: its first bytes, 16 or more.
        name: of the file; its ending counts where the bytes do not tell.

    Returns:
        a sentence without its end; None if the format is not known.
    """
    for beginning, mistake in _STARTS.items():
        if start.startswith(beginning):
            return mistake
    if start[4:8] == _TFLITE:
        return "it holds " + _OF_ANOTHER.format("TensorFlow Lite")
    suffix = next((s for s in _OTHER_SUFFIXES if os.fspath(name).endswith(s)), None)
    if suffix:
        return "it holds " + _OTHER_SUFFIXES[suffix]
    if _ONNX.match(start):
        return "it holds " + _OF_ANOTHER.format("ONNX")
    if _MSGPACK.match(start):
        return "it holds " + _OF_ANOTHER.format("MessagePack, as Flax writes it")
    return None


def archive_mistake(members: Iterable[str]) -> str:
    """What a zip archive is that ``torch.save`` did not write.

    Args:
        members: the names of the files in it.
    """
    members = list(members)
    endings = {Path(name).name for name in members}
    packed = [name for name in members if name.endswith(_CHECKPOINTS)]
    if endings & {"archive_format", "model.json", "serialized_exported_program.json"}:
        return (
            "it is an exported program (torch.export). Give the checkpoint that it was "
            "exported from, or save its weights: torch.save(torch.export.load(FILE)"
            ".state_dict, 'weights.pth')"
        )
    if "model.weights.h5" in endings:
        return "it holds " + _OF_ANOTHER.format("Keras")
    if "saved_model.pb" in endings:
        return "it holds " + _OF_ANOTHER.format("TensorFlow")
    if packed:
        return f"it is a zip archive with {few(packed)}: unzip it and name that file"
    if members and all(name.endswith(".npy") for name in members):
        return "it holds NumPy arrays (.npz), and not the weights of a PyTorch model"
    return "it is a zip archive, and not one of torch.save"


def folder_mistake(folder: Path) -> str:
    """What to name instead of a folder that has no weights under the usual names."""
    names = sorted(os.listdir(folder))
    files = [name for name in names if name.endswith(_CHECKPOINTS)]
    if ".metadata" in names and any(name.endswith(PIECE) for name in names):
        return (
            "it is a sharded checkpoint (torch.distributed.checkpoint). Join it: "
            "python -m torch.distributed.checkpoint.format_utils dcp_to_torch "
            f"{folder} weights.pth"
        )
    if "zero_to_fp32.py" in names or any("zero_pp_rank" in name for name in names):
        return (
            "it is a checkpoint of DeepSpeed. Join it by the script that DeepSpeed "
            f"puts beside it: python zero_to_fp32.py {folder} weights.pth"
        )
    if "adapter_config.json" in names:
        return ADAPTER
    if "data.pkl" in names and "data" in names:
        return (
            "it is a file of torch.save that was unpacked. Pack it again: "
            f"python -c \"import shutil; shutil.make_archive('weights', 'zip', "
            f'{str(folder.parent)!r}, {folder.name!r})", and name weights.zip'
        )
    if "saved_model.pb" in names or any(name.endswith(".index") for name in names):
        return "it holds " + _OF_ANOTHER.format("TensorFlow")
    if "flax_model.msgpack" in names or "_CHECKPOINT_METADATA" in names:
        return "it holds " + _OF_ANOTHER.format("Flax")
    if files:
        return f"name one of its files: {few(files)}"
    return ""


ZERO = (
    "each process of DeepSpeed (ZeRO) has saved a piece of them. Join the pieces by "
    "the script in the checkpoint's folder: python zero_to_fp32.py FOLDER weights.pth"
)
ADAPTER = (
    "it holds a LoRA adapter: changes to the weights of another model. Merge them and "
    "save the result: torch.save(model.merge_and_unload().state_dict(), 'weights.pth')"
)
