"""Data sets in the formats of other tools: found, read exactly, never cut in silence."""

import json
import re

import numpy as np
import pytest

from convnext_dense.datasets.custom.formats import labelme, yolo
from convnext_dense.datasets.custom.formats.content import (
    BAD_FILE,
    BAD_OBJECT,
    NO_FILE,
    NO_IMAGE,
    TWO_IMAGES,
)
from convnext_dense.datasets.custom.prepare import Options, examine
from convnext_dense.errors import InputError
from convnext_dense.utils.masks import to_bitmap

from ..helpers.custom_data import coco, photograph, save
from ..helpers.formats import (
    CLASSES,
    OBJECTS,
    content_of,
    labelme as labelme_file,
    photographs,
    png,
    shape,
    text,
    voc,
    voc_object,
    write_labelme,
    write_voc,
    write_yolo,
    yolo_line,
)

TRAIN, VAL = ("a", "b", "c"), ("d",)
NAMES = "names: [bee, ant]\n"
LINES = "bee\nant\n"


def read(path, **more):
    return examine(Options(data=str(path), **more))


def ultralytics(root):
    write_yolo(root / "images/train", root / "labels/train", TRAIN)
    write_yolo(root / "images/val", root / "labels/val", VAL)
    text(root / "data.yaml", f"path: .\ntrain: images/train\nval: images/val\n{NAMES}")


def roboflow(root):
    for folder, stems in (("train", TRAIN), ("valid", VAL), ("test", VAL)):
        write_yolo(root / folder / "images", root / folder / "labels", stems)
    lines = (
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\n"
    )
    text(root / "data.yaml", lines + "names: ['bee', 'ant']\nroboflow:\n  version: 1\n")
    text(root / "README.roboflow.txt", "exported")


def fiftyone(root):
    ultralytics(root)
    (root / "data.yaml").unlink()
    lines = "path: /home/somebody/export\ntrain: ./images/train/\nval: ./images/val/\n"
    text(root / "dataset.yaml", lines + "names:\n  0: bee\n  1: ant\n")


def lists_of_images(root):
    write_yolo(root / "images", root / "labels")
    text(root / "train.txt", "./images/a.jpg\n./images/b.jpg\n\n./images/c.jpg\n")
    text(root / "val.txt", "./images/d.jpg\n")
    text(root / "data.yaml", f"train: train.txt\nval: val.txt\n{NAMES}")


def list_of_folders(root):
    for stem in TRAIN:
        write_yolo(root / stem / "images", root / stem / "labels", [stem])
    write_yolo(root / "v/images", root / "v/labels", VAL)
    text(root / "a.yml", f"train: [a/images, b/images, c/images]\nval: v\n{NAMES}")


def cvat_ultralytics(root):
    ultralytics(root)
    for split, stems in (("train", TRAIN), ("val", VAL)):
        names = [f"data/images/{split}/{stem}.jpg" for stem in stems]
        text(root / f"{split}.txt", "\n".join(names))
    text(root / "data.yaml", f"path: .\ntrain: train.txt\nval: val.txt\n{NAMES}")


def cvat_yolo_1_1(root):
    folders = {"obj_train_data": TRAIN, "obj_valid_data": VAL}
    for (folder, stems), split in zip(folders.items(), ("train", "valid"), strict=True):
        write_yolo(root / folder, root / folder, stems)
        names = [f"data/{folder}/{stem}.jpg" for stem in stems]
        text(root / f"{split}.txt", "\n".join(names))
    text(root / "obj.names", LINES)
    text(
        root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names"
    )


def roboflow_darknet(root):
    for folder, stems in (("train", TRAIN), ("valid", VAL)):
        write_yolo(root / folder, root / folder, stems)
        text(root / folder / "_darknet.labels", LINES)


def label_studio(root):
    write_yolo(root / "images", root / "labels")
    text(root / "classes.txt", LINES)
    text(root / "notes.json", json.dumps(dict(categories=[], info={})))


def labelimg_yolo(root):
    write_yolo(root, root)
    text(root / "classes.txt", LINES)


def pascal_voc(root):
    write_voc(root / "JPEGImages", root / "Annotations")
    text(root / "ImageSets/Main/train.txt", "a\nb\nc\n")
    text(root / "ImageSets/Main/val.txt", "d\n")
    text(root / "ImageSets/Main/trainval.txt", "a\nb\nc\nd\n")
    text(root / "ImageSets/Main/bee_train.txt", "a  1\nb -1\nc -1\n")


def voc_years(root):
    for year, train, val in (("VOC2007", "ab", "d"), ("VOC2012", "c", "")):
        folder = root / year
        write_voc(folder / "JPEGImages", folder / "Annotations", [*train, *val])
        text(folder / "ImageSets/Main/train.txt", "\n".join(train))
        text(folder / "ImageSets/Main/val.txt", "\n".join(val))


def labelimg_voc(root):
    write_voc(root, root)


def roboflow_voc(root):
    for folder, stems in (("train", TRAIN), ("valid", VAL), ("test", VAL)):
        write_voc(root / folder, root / folder, stems)


def cvat_voc(root):
    write_voc(root / "JPEGImages", root / "Annotations")
    text(root / "ImageSets/Main/default.txt", "a\nb\nc\nd\n")
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbee:1,2,3::\n")


def voc_apart(root):
    for folder, stems in (("train", TRAIN), ("val", VAL)):
        write_voc(root / "images" / folder, root / "annotations" / folder, stems)


def labelme_beside(root):
    write_labelme(root, root)


def labelme_splits(root):
    write_labelme(root / "train", root / "train", TRAIN)
    write_labelme(root / "val", root / "val", VAL)


def labelme_apart(root):
    write_labelme(root / "images", root / "json")
    for file in (root / "json").glob("*.json"):
        content = json.loads(file.read_text())
        content["imagePath"] = rf"..\images\{content['imagePath']}"
        file.write_text(json.dumps(content))


def unpacked_into_a_folder(root):
    ultralytics(root / "my export")


DRAWN = None  # the layout has no validation split
LAYOUTS = {
    ultralytics: ("YOLO", VAL),
    roboflow: ("YOLO", VAL),
    fiftyone: ("YOLO", VAL),
    lists_of_images: ("YOLO", VAL),
    list_of_folders: ("YOLO", VAL),
    cvat_ultralytics: ("YOLO", VAL),
    cvat_yolo_1_1: ("YOLO", VAL),
    roboflow_darknet: ("YOLO", VAL),
    label_studio: ("YOLO", DRAWN),
    labelimg_yolo: ("YOLO", DRAWN),
    pascal_voc: ("Pascal VOC", VAL),
    voc_years: ("Pascal VOC", VAL),
    labelimg_voc: ("Pascal VOC", DRAWN),
    roboflow_voc: ("Pascal VOC", VAL),
    cvat_voc: ("Pascal VOC", DRAWN),
    voc_apart: ("Pascal VOC", VAL),
    labelme_beside: ("labelme", DRAWN),
    labelme_splits: ("labelme", VAL),
    labelme_apart: ("labelme", DRAWN),
    unpacked_into_a_folder: ("YOLO", VAL),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    """Every image and object of the data set, in the split that the layout says."""
    name, val_stems = LAYOUTS[layout]
    layout(tmp_path)
    train, val = read(tmp_path)
    assert train.source.startswith(f"{name}, ")
    problems = {
        p.what for s in (train, val) for p, _ in s.problems if p.level != "note"
    }
    assert problems <= {"classes without objects"}
    content = {**content_of(train), **content_of(val)}
    assert content == OBJECTS
    assert train.classes == (CLASSES if name == "YOLO" else tuple(sorted(CLASSES)))
    assert not train.has_masks
    if val_stems:
        assert set(content_of(val)) == set(val_stems)
    else:
        assert len(val.files) == 1
