"""Mistakes with annotations in other formats than COCO's."""

import json
from collections.abc import Callable

from ..helpers.custom_data import coco, photograph, save
from ..helpers.formats import (
    labelme,
    shape,
    text,
    voc,
    voc_object,
    write_labelme,
    write_voc,
    write_yolo,
    yolo_line,
)
from .case import DET, Case, Maker


def yolo(lines: str = "", names: str = "names: [bee, ant]\n") -> Maker:
    """Two images, a label file that ends with ``lines``, and a data.yaml."""

    def arguments(t):
        write_yolo(t / "d/images", t / "d/labels", "ab")
        text(t / "d/labels/a.txt", yolo_line(0, (4, 6, 30, 20)) + lines)
        text(t / "d/data.yaml", f"train: images\n{names}")
        return ["--data", t / "d"]

    return arguments


def pascal_voc(xml: str) -> Maker:
    """Two images, and the text of the first one's file."""

    def arguments(t):
        write_voc(t / "d", t / "d", "ab")
        text(t / "d/a.xml", xml)
        return ["--data", t / "d"]

    return arguments


def labelme_shape(*shapes: dict) -> Maker:
    """Two images, and the shapes of the first one's labelme file."""

    def arguments(t):
        write_labelme(t / "d", t / "d", "ab")
        text(t / "d/a.json", json.dumps(labelme("a.jpg", shapes)))
        return ["--data", t / "d"]

    return arguments


def as_json(content: object) -> Maker:
    """A JSON file given as a COCO file."""
    return lambda t: [
        *("--train-json", save(content, t / "a.json"), "--train-images", t),
    ]


def as_file(name: str, content: str) -> Maker:
    """A text file given as a COCO file."""
    return lambda t: [
        *("--train-json", text(t / name, content), "--train-images", t),
    ]


def changed(layout: Maker, change: Callable) -> Maker:
    """``layout`` with a change in its folder."""

    def arguments(t):
        options = layout(t)
        change(t / "d")
        return options

    return arguments


def json_as_data(t):
    """A COCO file given as --data."""
    coco(t / "images")
    return ["--data", save({"images": []}, t / "o.json")]


def text_of_image(folder):
    """A labelme file with its image inside, and no image beside it."""
    (folder / "a.jpg").unlink()
    text(folder / "a.json", json.dumps(labelme("a.jpg", imageData="AAAA")))


def inspect(mistake: str, arguments: Maker, says: str, code: int = 2) -> Case:
    """A mistake that convnext-dense inspect-data reports."""
    return Case("inspect_data", mistake, arguments, says, code)


PANOPTIC = dict(images=[], categories=[], annotations=[dict(segments_info=[])])
VIA = dict(_via_img_metadata={}, _via_settings={})

CASES = [
    inspect(
        "a COCO panoptic file as the file",
        as_json(PANOPTIC),
        "a.json is a COCO panoptic file: give the instances file of the same data "
        "(instances_*.json), or its label maps as --train-labels",
    ),
    inspect(
        "predictions as the file",
        as_json([dict(image_id=1, category_id=1, bbox=[], score=1)]),
        "a.json is a COCO results file, a list of predictions: give the file of "
        "annotations",
    ),
    Case(
        "train",
        "a VIA project as the file",
        lambda t: [DET, *as_json(VIA)(t)],
        "a.json is a VIA 2 project: in VIA, choose Annotation > Export Annotations "
        "(COCO format)",
    ),
    inspect(
        "a Label Studio export as the file",
        as_json([dict(id=1, data={}, annotations=[])]),
        "a.json is a Label Studio export in its own JSON: in Label Studio, export the "
        "project again as COCO",
    ),
    inspect(
        "a CVAT file as the file",
        as_file("a.xml", "<annotations><image/></annotations>"),
        "a.xml is a CVAT file (CVAT for images): in CVAT, export the task again as "
        "'COCO 1.0'",
    ),
    inspect(
        "a labelme file as the file",
        as_json(labelme("a.jpg")),
        "a.json is a labelme file of one image: --data ... reads it",
    ),
    inspect(
        "a data.yaml as the file",
        as_file("data.yaml", "train: images\nnames: [bee]\n"),
        "data.yaml is a description of YOLO data: --data .../data.yaml reads it",
    ),
    inspect(
        "an archive as the file",
        as_file("a.zip", "PK"),
        "a.zip is an archive: unpack it, and give what is in it",
    ),
    inspect(
        "a Supervisely project as the folder",
        lambda t: ["--data", save(dict(classes=[], tags=[]), t / "d/meta.json").parent],
        "--data: found no data set in ... has meta.json, which is Supervisely's "
        "meta.json, the classes of a project: in Supervisely, run the app Export to "
        "COCO on the project",
    ),
    inspect(
        "a COCO file as the folder",
        json_as_data,
        "--data: .../o.json is a file, not a folder: give a COCO file as --train-json "
        ".../o.json --train-images FOLDER",
    ),
    inspect(
        "YOLO: a line of four values",
        yolo("0 .5 .5 .2\n"),
        "error: lines of label files that cannot be read: 1 (labels/a.txt line 2: 4 "
        "values); a line is: class x-center y-center width height",
        1,
    ),
    inspect(
        "YOLO: pixels instead of fractions",
        yolo("0 32 24 10 10\n"),
        "(labels/a.txt line 2: values outside 0 to 1: are they pixels?)",
        1,
    ),
    inspect(
        "YOLO: a class without a name",
        yolo("2 .5 .5 .2 .2\n"),
        "error: lines of label files whose class has no name: 1 (labels/a.txt line 2: "
        "class 2 of 2 classes); classes count from 0",
        1,
    ),
    inspect(
        "YOLO: no list of classes",
        changed(yolo(), lambda d: (d / "data.yaml").unlink()),
        "has YOLO label files, and no data.yaml, classes.txt or obj.names ... that "
        "names the classes: write .../classes.txt with a name on each line",
    ),
    inspect(
        "YOLO: a folder that is not there",
        yolo(names="names: [bee, ant]\nval: gone\n"),
        "data.yaml: val names gone, which is not there (looked for .../gone): correct "
        "the line, or path:",
    ),
    inspect(
        "YOLO: a label file without an image",
        changed(yolo(), lambda d: text(d / "labels/lost.txt", "")),
        "error: annotation files without an image: 1 (labels/lost.txt); add the images",
        1,
    ),
    inspect(
        "Pascal VOC: an object without a box",
        pascal_voc(voc("a.jpg", "<object><name>bee</name></object>" + voc_object())),
        "error: objects that cannot be read: 1 (a.xml object 1 (bee): no bndbox of "
        "four numbers); correct them in the file",
        1,
    ),
    inspect(
        "Pascal VOC: a document type with entities",
        pascal_voc('<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>'),
        "error: annotation files that cannot be read: 1 (a.xml: it has a document type",
        1,
    ),
    inspect(
        "Pascal VOC: the name inside a file is that of another image",
        changed(
            pascal_voc(voc("new.jpg", voc_object())),
            lambda d: photograph(d / "new.jpg", 9),
        ),
        "error: annotation files that fit two images: 1 (a.xml); give a file and its "
        "image the same name",
        1,
    ),
    inspect(
        "labelme: a polygon of two points",
        labelme_shape(shape([(1, 1), (9, 9)])),
        "error: objects that cannot be read: 1 (a.json shape 1 (bee): a polygon of 2 "
        "points)",
        1,
    ),
    inspect(
        "labelme: a point",
        labelme_shape(
            shape([(1, 1)], shape_type="point"),
            shape([(4, 6), (30, 20)], "ant", "rectangle"),
        ),
        "warning: points and lines, which are no objects: 1 (a.json shape 1 (bee)); "
        "not used",
        0,
    ),
    inspect(
        "labelme: an image that is only inside its file",
        changed(labelme_shape(), text_of_image),
        "error: images that are only inside their labelme files, as imageData: 1 "
        "(a.json); write each beside its file",
        1,
    ),
]
