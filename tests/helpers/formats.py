"""Small data sets as annotation tools write them, in formats other than COCO's."""

import base64
import io
import json

import numpy as np
import PIL.Image

from .custom_data import HEIGHT, WIDTH, photograph

CLASSES = ("bee", "ant")
# Of each image, the class of each object, and left, top, right and bottom in pixels.
OBJECTS = {
    "a": [("bee", (4, 6, 30, 20)), ("ant", (1, 0, 64, 48))],
    "b": [("ant", (10, 12, 42, 36))],
    "c": [],
    "d": [("bee", (32, 24, 62, 46))],
}


def photographs(folder, stems=OBJECTS, suffix=".jpg"):
    """Write an image for each name."""
    for stem in stems:
        photograph(folder / f"{stem}{suffix}", seed=ord(stem[0]))


def text(file, content):
    """Write text, and return the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")
    return file


def yolo_line(label, corners):
    """A line for a box."""
    left, top, right, bottom = corners
    x, y = (left + right) / 2 / WIDTH, (top + bottom) / 2 / HEIGHT
    w, h = (right - left) / WIDTH, (bottom - top) / HEIGHT
    return f"{label} {x} {y} {w} {h}\n"


def write_yolo(images, labels, stems=OBJECTS):
    """Write images and a label file for each into two folders."""
    photographs(images, stems)
    for stem in stems:
        lines = [yolo_line(CLASSES.index(name), at) for name, at in OBJECTS[stem]]
        text(labels / f"{stem}.txt", "".join(lines))


def voc_object(name="bee", box=(5, 7, 30, 20), more=""):
    """An object with corners as the file has them."""
    tags = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    corners = "".join(f"<{tag}>{side}</{tag}>" for tag, side in tags)
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


def voc(file_name, objects="", size=(WIDTH, HEIGHT)):
    """The text of a Pascal VOC file."""
    sides = f"<width>{size[0]}</width><height>{size[1]}</height><depth>3</depth>"
    return (
        f"<annotation><filename>{file_name}</filename><size>{sides}</size>"
        f"{objects}</annotation>"
    )


def write_voc(images, xmls, stems=OBJECTS):
    """Write images and an XML file for each into two folders."""
    photographs(images, stems)
    for stem in stems:
        objects = "".join(
            voc_object(name, (left + 1, top + 1, right, bottom))
            for name, (left, top, right, bottom) in OBJECTS[stem]
        )
        text(xmls / f"{stem}.xml", voc(f"{stem}.jpg", objects))


def shape(points, label="bee", shape_type="polygon", **more):
    """A shape of labelme."""
    listed = [list(point) for point in points]
    return dict(
        dict(
            label=label, points=listed, group_id=None, shape_type=shape_type, flags={}
        ),
        **more,
    )


def labelme(image_path, shapes=(), **more):
    """The content of a labelme file."""
    listed = dict(version="5.5.0", flags={}, shapes=list(shapes), imagePath=image_path)
    sizes = dict(imageData=None, imageHeight=HEIGHT, imageWidth=WIDTH)
    return {**listed, **sizes, **more}


def write_labelme(images, files, stems=OBJECTS):
    """Write images and a labelme file for each into two folders."""
    photographs(images, stems)
    for stem in stems:
        shapes = [
            shape([(right, bottom), (left, top)], name, "rectangle")
            for name, (left, top, right, bottom) in OBJECTS[stem]
        ]
        text(files / f"{stem}.json", json.dumps(labelme(f"{stem}.jpg", shapes)))


def png(bitmap):
    """(H, W) bool as a PNG in base64, as labelme writes masks."""
    file = io.BytesIO()
    PIL.Image.fromarray(bitmap.astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def content_of(split):
    """Of a split, for each image its classes and corners, by name without an ending."""
    names = {category["id"]: category["name"] for category in split.categories}
    content = {}
    for image, annotations in zip(split.images, split.annotations, strict=True):
        stem = image["file_name"].rpartition("/")[2].rpartition(".")[0]
        content[stem] = [
            (names[a["category_id"]], corners(a["bbox"])) for a in annotations
        ]
    return content


def corners(bbox):
    """COCO's box as corners, rounded where fractions are."""
    x, y, w, h = bbox
    return tuple(round(side, 4) for side in (x, y, x + w, y + h))
