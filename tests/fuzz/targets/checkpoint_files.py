"""Reads checkpoint files of every format, and converts what they hold."""

import contextlib
import functools
import io
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from convnext_dense import ConvNeXt, checkpoints
from convnext_dense.checkpoints import entries, loading, reading
from convnext_dense.checkpoints.converting import convert, meta_of
from convnext_dense.checkpoints.origins import TARGETS
from convnext_dense.checkpoints.recognition import recognise
from convnext_dense.checkpoints.writing import write
from convnext_dense.errors import InputError

from ..case import Files, Link, Pipe
from ..mutations import values
from . import contents, formats
from .target import Target


class Settings(dict):
    """A class of a training script, with entries and attributes."""


def beside_objects(weights: dict) -> dict:
    """Weights beside objects that are left out when the file is read."""
    settings = Settings(lr=0.1, net=Settings(weights))
    settings.inside = {Settings: [settings], "sparse": torch.eye(2).to_sparse()}
    return {"net": Settings(weights), "ema": {"module": weights}, "x": settings}


@functools.cache
def file_seeds() -> list[Files]:
    """One file, or an index with shards, of each format."""
    run = contents.run_checkpoint()
    weights = contents.classifier()
    few = dict(list(weights.items())[:6])
    return [
        *({"c.pth": formats.zip_file(run)} for _ in range(4)),
        {"c.pth": formats.zip_file(weights)},
        *({"c.pth": formats.legacy_file(run)} for _ in range(3)),
        {"c.pth": formats.legacy_file(few)},
        {"c.pth": formats.zip_file(beside_objects(weights))},
        {"c.pth": formats.legacy_file(beside_objects(few))},
        *({"c.pth": formats.tar_file(few)} for _ in range(2)),
        *({"c.safetensors": formats.safetensors_file(weights)} for _ in range(2)),
        formats.index_and_shards(weights, ".safetensors"),
        formats.index_and_shards(weights, ".bin"),
        *({"c.pth": program} for program in formats.programs()),
    ]


@functools.cache
def _corpus() -> list[bytes]:
    return [c for files in file_seeds() for c in files.values() if type(c) is bytes]


def mutate_files(files: Files, rng: Random) -> Files:
    """Change one file, or replace the content that is written to it."""
    name = rng.choice(list(files))
    content = files[name]
    if not isinstance(content, bytes):
        return files
    if rng.random() < 0.02:
        special = rng.choice((Pipe(), Link("/dev/zero"), Link("."), Link("/nowhere")))
        return {**files, name: special}
    if name.endswith(".json"):
        return {**files, name: formats.change_index(content, rng)}
    if name == "c.pth" and rng.random() < 0.35:
        return {name: _other_content(rng)}
    return {**files, name: formats.change(content, rng, _corpus())}


def _other_content(rng: Random) -> bytes:
    """A run's checkpoint with some values replaced, written without damage."""
    tree = contents.run_checkpoint()
    for _ in range(rng.choice((1, 1, 2, 4))):
        values.change(tree, rng, contents.anything)
    writer = rng.choice((formats.zip_file, formats.zip_file, formats.legacy_file))
    return writer(tree)


def _read(folder: Path) -> None:
    """Read the file as the commands do, and use what it holds."""
    index = folder / "model.index.json"
    names = sorted(path.name for path in folder.iterdir())
    path = index if index.name in names else folder / names[0]
    content = checkpoints.read(path)
    str(meta_of(content))[:100]
    use(content, str(path))


def use(content: Any, source: str) -> None:
    """Do with the content of a checkpoint what the package does with it.

    Most have no whole ConvNeXt: what refuses them must only do so properly.
    """
    with contextlib.suppress(InputError):
        weights = entries.find(content, source).tensors
        for convnext in recognise(weights):
            loading.fit(ConvNeXt(contents.ARCH), convnext, source)
    for library in TARGETS:
        with contextlib.suppress(InputError):
            convert(content, source, library)


def _read_batch(folder: Path) -> None:
    reading.read_batch(str(folder / "c.pth"))


@functools.cache
def _batch_seeds() -> list[Files]:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData, PixelData
    from mmseg.structures import SegDataSample

    boxes = InstanceData(bboxes=torch.ones(1, 4), labels=torch.zeros(1))
    pixels = SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, 4, 4)))
    samples = [DetDataSample(gt_instances=boxes), pixels]
    batch = dict(inputs=[torch.zeros(3, 4, 4)], data_samples=samples)
    content = dict(batch=batch, iter=3)
    return [
        {"c.pth": formats.zip_file(content)},
        {"c.pth": formats.legacy_file(content)},
    ]


@functools.cache
def _weight_seeds() -> list[Files]:
    return [
        {"c.pth": formats.zip_file(weights)}
        for weights in contents.weights_of_every_library()
    ]


def _key(rng: Random) -> Any:
    """A key of a dict, most often a text."""
    return rng.choice((values.word(rng), values.integer(rng), None, (1, "a"), 0.5))


_SYLLABLES = (
    *("module.", "backbone.", "_orig_mod.", "stages.", "0", "1", "99", "999", "1000"),
    *(".", "..", "norm", "head", ".weight", ".bias", ".gamma", "dwconv", "grn", "-1"),
    *("downsample_layers.0.0.weight", "stem.0.weight", "features.0.0.weight", "٣", ""),
    *("convnext.embeddings.patch_embeddings.weight", "student.", "teacher.", "norm3"),
)


def _mutate_weights(files: Files, rng: Random) -> Files:
    """Change names, shapes and dtypes of a state dict."""
    weights = dict(torch.load(io.BytesIO(files["c.pth"]), weights_only=False))
    for _ in range(rng.choice((1, 2, 4, 16))):
        name = rng.choice(list(weights) or [""])
        match rng.randrange(8):
            case 0:
                weights.pop(name, None)
            case 1:
                weights[rng.choice(_SYLLABLES) + str(name)] = weights.get(name)
            case 2:
                parts = str(name).split(".")
                parts[rng.randrange(len(parts))] = rng.choice(_SYLLABLES)
                weights[".".join(parts)] = weights.pop(name, None)
            case 3:
                weights[_key(rng)] = contents.anything(rng)
            case 4:
                prefix = rng.choice(_SYLLABLES)
                weights = {prefix + str(n): w for n, w in weights.items()}
            case 5 if isinstance(weights.get(name), Tensor):
                weights[name] = weights[name].clone().flatten()[: rng.randrange(9)]
            case 6 if isinstance(weights.get(name), Tensor):
                weights[name] = weights[name][None].expand(2, *weights[name].shape)
            case _:
                weights[name] = contents.tensor(rng)
    if rng.random() < 0.1:
        weights = {rng.choice(("state_dict", "model", "teacher", "x")): weights}
    return {"c.pth": formats.zip_file(weights)}


def _load_and_convert(folder: Path) -> None:
    """Load weights into a backbone, and write them for every library."""
    path = folder / "c.pth"
    content = checkpoints.read(path)
    refused = None
    try:
        loading.load_pretrained(ConvNeXt(contents.ARCH), str(path))
    except InputError as error:
        refused = error
    for library in TARGETS:
        try:
            conversion = convert(content, str(path), library)
            write(conversion.weights, folder / "out.safetensors")
        except InputError as error:
            refused = error
    if refused:
        raise refused


TARGETS_HERE = (
    Target("checkpoint", file_seeds, mutate_files, _read, share=6),
    Target("batch", _batch_seeds, mutate_files, _read_batch, share=0.7),
    Target(
        "weights",
        _weight_seeds,
        _mutate_weights,
        _load_and_convert,
        changes=("out.safetensors",),
        share=1.5,
    ),
)
