"""Inspects and repairs COCO files and label maps, and reads masks."""

import functools
import json
import shutil
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from convnext_dense.commands.inspect_data.inspection import inspect
from convnext_dense.datasets.custom.prepare import Options, examine
from convnext_dense.errors import InputError
from convnext_dense.utils.json_files import read_json
from convnext_dense.utils.masks import read_mask, to_bitmap

from ...helpers import custom_data
from ..case import Files, Link, Pipe
from ..mutations import images, json_text, values
from .target import Target


def _files_below(folder: Path) -> Files:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@functools.cache
def _coco_seeds() -> list[Files]:
    root = Path(tempfile.mkdtemp())
    content = custom_data.coco(root / "images", images=4)
    content["images"][0]["width"] = custom_data.WIDTH
    pictures = _files_below(root)
    shutil.rmtree(root)
    return [{"a.json": json.dumps(content).encode(), **pictures}]


_IDS = (
    0,
    1,
    -1,
    97,
    98,
    100,
    3,
    7,
    "7",
    "a",
    2**53,
    2**64,
    1.0,
    None,
    True,
    [1],
    1e400,
)


def _mutate_coco(files: Files, rng: Random) -> Files:
    if rng.random() < 0.12:
        return _mutate_one_image(files, rng, "images/")
    try:
        content = json.loads(files["a.json"])
        for _ in range(rng.choice((1, 1, 2, 5))):
            content = _change_coco(content, rng)
        text = json_text.dump(content, rng)
    except Exception:  # not JSON any more
        text = files["a.json"].decode("utf-8", "replace")
    if rng.random() < 0.1:
        text = json_text.change_text(text, rng)
    return {**files, "a.json": text.encode("utf-8", "surrogatepass")}


def _change_coco(content: Any, rng: Random) -> Any:
    """Change what the file says of an image, a class or an object."""
    if rng.random() < 0.3:
        return values.change(content, rng)
    entries = content[
        rng.choice(("images", "annotations", "annotations", "categories"))
    ]
    entry = rng.choice(entries)
    keys = [k for k in entry if k not in ("segmentation", "bbox")]
    match rng.randrange(8):
        case 0:
            entry["id"] = rng.choice(_IDS)
        case 1 if "bbox" in entry:
            entry["bbox"] = [
                values.number(rng) for _ in range(rng.choice((4, 4, 3, 0)))
            ]
        case 2 if "segmentation" in entry:
            entry["segmentation"] = _segmentation(rng)
        case 3 if "file_name" in entry:
            entry["file_name"] = rng.choice(
                ("../a.json", "/etc/hostname", ".", "", "pipe", values.word(rng))
            )
        case 4 if "name" in entry:
            entry["name"] = values.word(rng)
        case 5:
            entries.extend([dict(entry)] * rng.choice((1, 10, 2000)))
        case 6:
            entry[rng.choice(("iscrowd", "area", "image_id", "width", "extra"))] = (
                values.plain(rng)
            )
        case _:
            entry[rng.choice(keys)] = rng.choice(_IDS)
    return content


def _segmentation(rng: Random) -> Any:
    width, height = custom_data.WIDTH, custom_data.HEIGHT
    match rng.randrange(6):
        case 0:
            return [[values.number(rng) for _ in range(rng.choice((6, 8, 7, 2, 0)))]]
        case 1:
            points = rng.choice((100, 10_000))
            return [[rng.uniform(-99, 99) for _ in range(points)]]
        case 2:
            counts = rng.choice((run_lengths(rng), [values.integer(rng)] * 3, "", None))
            return dict(size=[height, width], counts=counts)
        case 3:
            size = rng.choice(([1, 1], [height, -1], [2**20, 2**20], None, [height]))
            return dict(size=size, counts=[width * height])
        case 4:
            zeros = [0] * rng.choice((10, 10_000)) + [width * height]
            return dict(size=[height, width], counts=zeros)
        case _:
            return values.plain(rng)


def run_lengths(rng: Random) -> str:
    """Compressed run lengths: right, changed, or only of the right letters."""
    text = custom_data.rle()["counts"]
    match rng.randrange(5):
        case 0:
            return "".join(
                chr(rng.randrange(48, 112)) for _ in range(rng.randrange(40))
            )
        case 1:
            letter = rng.choice("0o_~PQ1@")
            return letter * rng.choice((1, 20, 1000, 1_000_000))
        case 2:
            return text + values.word(rng)[:1000]
        case _:
            place = rng.randrange(len(text))
            return text[:place] + chr(rng.randrange(40, 120)) + text[place + 1 :]


def _inspect_coco(folder: Path) -> None:
    """Inspect, write a cleaned copy, and draw what it has."""
    options = Options(
        train_json=str(folder / "a.json"), train_images=str(folder / "images")
    )
    inspect(options, None, str(folder / "fixed"), 0)
    again = Options(
        train_json=str(folder / "fixed/train.json"),
        train_images=str(folder / "images"),
    )
    for split in examine(again):
        if split.files:
            split.sample(0)


def _mutate_one_image(files: Files, rng: Random, folder: str) -> Files:
    names = [n for n, c in files.items() if n.startswith(folder) and type(c) is bytes]
    if not names:
        return files
    name = rng.choice(names)
    if rng.random() < 0.1:
        return {**files, name: rng.choice((Pipe(), Link("/dev/zero"), Link("/"), b""))}
    if rng.random() < 0.1:
        new = folder + values.word(rng)[:80] + rng.choice((".png", ".jpg", ""))
        return {**{n: c for n, c in files.items() if n != name}, new: files[name]}
    corpus = [files[n] for n in names]
    return {**files, name: images.change(files[name], rng, corpus)}


@functools.cache
def _label_seeds() -> list[Files]:
    seeds = []
    for label_format in ("grey", "16 bits", "palette", "colors"):
        root = Path(tempfile.mkdtemp())
        custom_data.write_label_maps(root, 3, label_format)
        if label_format == "colors":
            custom_data.color_map(root / "colors.txt")
        else:
            (root / "classes.txt").write_text("ground\nKäfer\nant\n")
        seeds.append(_files_below(root))
        shutil.rmtree(root)
    return seeds


def _mutate_labels(files: Files, rng: Random) -> Files:
    texts = [n for n in files if n.endswith(".txt")]
    if not texts or rng.random() < 0.7:
        return _mutate_one_image(files, rng, rng.choice(("images/", "labels/")))
    name = texts[0]
    if not isinstance(files[name], bytes):
        return files
    if rng.random() < 0.05:
        return {**files, name: rng.choice((Pipe(), Link("/dev/zero"), Link("/")))}
    text = files[name].decode("utf-8", "surrogatepass")
    lines = text.splitlines() or [""]
    place = rng.randrange(len(lines))
    match rng.randrange(6):
        case 0:
            lines[place] = values.word(rng)
        case 1:
            lines[place] = f"{values.integer(rng)} 0 999 {values.word(rng)}"
        case 2:
            lines.insert(place, lines[place])
        case 3:
            lines *= rng.choice((2, 300, 3000))
            lines = [f"{line}{number}" for number, line in enumerate(lines)]
        case 4:
            colors = {"a": [0, 0, 0], "b": values.plain(rng)}
            lines = [json_text.dump(colors, rng)]
        case _:
            lines = [json_text.change_text('{"a": [0, 0, 0]}', rng)]
    changed = "\n".join(lines).encode("utf-8", "surrogatepass")
    return {**files, name: changed}


def _inspect_labels(folder: Path) -> None:
    options = Options(
        train_images=str(folder / "images"), train_labels=str(folder / "labels")
    )
    names = [path.name for path in folder.iterdir()]
    if "colors.txt" in names:
        options.color_map = str(folder / "colors.txt")
    elif "classes.txt" in names:
        options.classes = [str(folder / "classes.txt")]
    inspect(options, None, str(folder / "fixed"), 0)


@functools.cache
def _mask_seeds() -> list[Files]:
    masks = (
        custom_data.rle(),
        custom_data.rle(compressed=False),
        custom_data.box(1, 1)["segmentation"],
    )
    size = dict(width=custom_data.WIDTH, height=custom_data.HEIGHT)
    return [{"mask.json": json.dumps(dict(size, mask=m)).encode()} for m in masks]


def _mutate_mask(files: Files, rng: Random) -> Files:
    content = json.loads(files["mask.json"])
    if rng.random() < 0.1:
        side = rng.choice(("width", "height"))
        content[side] = rng.choice((1, 63, 65, 5000))
    elif rng.random() < 0.6:
        content["mask"] = _segmentation(rng)
    else:
        values.change(content, rng)
        content.update(width=custom_data.WIDTH, height=custom_data.HEIGHT)
    return {"mask.json": json_text.dump(content, rng).encode("utf-8", "surrogatepass")}


def _read_mask(folder: Path) -> None:
    """Read a mask, and compare what COCO's and pycocotools' formats of it say."""
    content = read_json(folder / "mask.json")
    if not isinstance(content, dict) or "mask" not in content:
        return
    width, height = content["width"], content["height"]
    result = read_mask(content["mask"], width, height)
    if result is None:
        raise InputError("refused")
    mask, rle = result
    if not mask:
        return  # polygons without area
    bitmap = to_bitmap(mask, height, width)
    decoded = mask_api.decode(rle).astype(bool)
    if bitmap.shape != (height, width) or not np.array_equal(bitmap, decoded):
        raise AssertionError(f"a mask of {bitmap.shape} for {(height, width)}")
    if int(mask_api.area(rle)) != int(decoded.sum()):
        raise AssertionError("the area is not the number of pixels")


TARGETS_HERE = (
    Target("coco", _coco_seeds, _mutate_coco, _inspect_coco, ("fixed/",), share=3),
    Target(
        "labels", _label_seeds, _mutate_labels, _inspect_labels, ("fixed/",), share=2
    ),
    Target("mask", _mask_seeds, _mutate_mask, _read_mask, memory=300),
)
