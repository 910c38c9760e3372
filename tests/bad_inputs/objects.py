"""Mistakes in a COCO file of custom data, or of a config."""

import copy
import json
import math
import os
from collections.abc import Callable

from ..helpers.custom_data import coco, rle
from .case import DET, Case, Maker, with_options, write

NAN, INF = math.nan, math.inf


def file(change: Callable, *more) -> Maker:
    """Options for six images and their COCO file.

    Args:
        change: changes the content of the file, or returns another text for it.
        more: arguments before the options.
    """

    def arguments(t):
        content = copy.deepcopy(coco(t / "images"))  # its categories are shared
        text = change(content)
        text = text if isinstance(text, str | bytes) else json.dumps(content)
        where = ["--train-json", write(t / "o.json", text)]
        return [*more, *where, "--train-images", t / "images"]

    return arguments


def inspect(mistake: str, change: Callable, says: str, code: int = 2) -> Case:
    """A mistake that convnext-dense inspect-data reports."""
    return Case("inspect_data", mistake, file(change), says, code)


def first(mistake: str, says: str, code: int = 1, **more) -> Case:
    """An error of the first object, whose keys ``more`` are changed."""
    change = lambda c: c["annotations"][0].update(more)  # noqa: E731
    return inspect(mistake, change, says, code)


def image(i: int, **more) -> Callable:
    """Change keys of image ``i``."""
    return lambda c: c["images"][i].update(more)


def category(**more) -> Callable:
    """Change keys of the first category; the lists of all cases share the others."""
    return lambda c: c.update(
        categories=[dict(c["categories"][0], **more), *c["categories"][1:]]
    )


def piped(t):
    """The options for six images, and a pipe in place of their COCO file."""
    os.mkfifo(t / "pipe")
    return ["--train-json", t / "pipe", *file(lambda c: None)(t)[2:]]


def other_classes(t):
    """The config of the shapes, whose annotation file has another class."""
    content = dict(
        images=[dict(id=1, file_name="000001.jpg", width=320, height=320)],
        annotations=[],
        categories=[dict(id=1, name="dog")],
    )
    write(t / "data/shapes/annotations/instances_train.json", json.dumps(content))
    return [DET]


def of_the_config(text: str) -> Maker:
    """The config of the shapes, whose annotation file holds ``text``."""

    def arguments(t):
        write(t / "data/shapes/annotations/instances_train.json", text)
        return [DET]

    return arguments


NO_BOX = "error: objects without a box of four finite numbers: 1 (object 1 in"
BAD_MASK = "error: masks that are damaged or of another size than their image: 1"
EMPTY = '{"images": [], "annotations": [], "categories": []}'

CASES = [
    Case(
        *("train", "a file that is not there"),
        lambda t: [DET, "--train-json", "gone.json", "--train-images", t],
        "--train-json: there is no file or folder .../gone.json",
    ),
    Case(
        *("inspect_data", "a folder as the file"),
        lambda t: ["--train-json", t, "--train-images", t],
        "is a folder: name a file",
    ),
    Case(
        *("inspect_data", "a pipe as the file"),
        piped,
        "pipe is a pipe (FIFO): copy its content to a file, and name that",
    ),
    Case(
        *("train", "a device as the file"),
        lambda t: [DET, "--train-json", "/dev/zero", "--train-images", t],
        "/dev/zero is a device: copy its content to a file, and name that",
    ),
    Case(
        *("inspect_data", "images in a folder that is not there"),
        lambda t: [*file(lambda c: None)(t)[:2], "--train-images", "gone"],
        "the train images: there is no folder .../gone",
    ),
    Case(
        *("train", "a file without its images"),
        lambda t: [DET, "--train-json", "o.json"],
        "--train-images is missing: give it beside --train-json",
    ),
    Case(
        *("train", "images without a file"),
        lambda t: [DET, "--train-images", t],
        "training data: give --train-json and --train-images, or --data FOLDER",
    ),
    Case(
        *("train", "validation images without their file"),
        lambda t: [*file(lambda c: None, DET)(t), "--val-images", t],
        "--val-json is missing: give it beside --val-images",
    ),
    Case(
        *("train", "a folder without a data set"),
        lambda t: [DET, "--data", t / "data/shapes/images"],
        "--data: found no data set in",
    ),
    inspect("a file that is not JSON", lambda c: "{", "o.json is not JSON: "),
    inspect("100 000 brackets", lambda c: "[" * 100_000, "is nested too deeply: "),
    inspect(
        "a number of 4000 digits",
        lambda c: '{"images": [{"id": ' + "9" * 4000,
        "o.json is not JSON: a number has 4000 digits: 9999",
    ),
    inspect(
        "text in UTF-16",
        lambda c: json.dumps(c).encode("utf-16"),
        "o.json is not text in UTF-8: ...; save it as UTF-8",
    ),
    inspect(
        "two lists of images",
        lambda c: json.dumps(c)[:-1] + ', "images": []}',
        "o.json has 2 lists of images: join them into one",
    ),
    inspect(
        "20 001 classes",
        lambda c: c.update(
            categories=[dict(id=i, name=f"class {i}") for i in range(20_001)]
        ),
        "the train annotations have 20001 classes; at most 20000 can be trained on",
    ),
    inspect(
        "a class name that moves the cursor",
        category(name="\x1b[2J"),
        r"error: class names with control characters or more than 200 characters: 1 "
        r"(\x1b[2J: it has the control character '\x1b'); --fix shortens them",
        1,
    ),
    inspect(
        "a class name of 100 000 characters",
        category(name="x" * 100_000),
        "it has 100000 characters, more than 200); --fix shortens them",
        1,
    ),
    inspect(
        "a device as an image",
        image(0, file_name="/dev/zero"),
        "error: images that are not in the folder: 1 (/dev/zero)",
        1,
    ),
    inspect(
        "a name of an image with half a character",
        image(0, file_name="\udcff.png"),
        r"error: images that are not in the folder: 1 (\udcff.png (the nearest is",
        1,
    ),
    inspect(
        "an image of 10^9 pixels a side",
        image(0, width=10**9, height=10**9),
        "1000000000 x 1000000000, is 64 x 48)",
        1,
    ),
    first(
        "an area of 1e308",
        "warning: objects whose area is larger than their image: 1 (object 1 in ...; "
        "their areas are computed from their masks or boxes",
        0,
        area=1e308,
    ),
    first(
        "run lengths of a million letters",
        BAD_MASK,
        segmentation=dict(size=[48, 64], counts="P" * 10**6),
    ),
    first(
        "a polygon that crosses the image 10 000 times",
        BAD_MASK,
        segmentation=[[0, 0, 64, 48] * 10_000],
    ),
    inspect("a list", lambda c: "[]", "is not a COCO annotation file: it holds a list"),
    inspect(
        "no annotations",
        lambda c: json.dumps(dict(images=[], categories=[])),
        "is not a COCO annotation file: it has no list of annotations; its keys",
    ),
    inspect("an empty split", lambda c: EMPTY, "o.json has no images"),
    Case(
        *("inspect_data", "an empty split to validate on"),
        lambda t: [
            *file(lambda c: None)(t),
            *("--val-json", write(t / "v.json", EMPTY), "--val-images", t),
        ],
        "v.json has no images",
    ),
    inspect(
        "one image, and no split to validate on",
        lambda c: c.update(images=c["images"][:1], annotations=c["annotations"][:2]),
        "o.json has one image: name a validation split too",
    ),
    inspect(
        "a split without a single object",
        lambda c: c.update(annotations=[]),
        "error: splits without objects to train on (crowd regions and ignored objects "
        "do not count): 1 (train); annotate some",
        1,
    ),
    inspect(
        "no classes",
        lambda c: c.update(categories=[]),
        "error: objects whose category_id is not in the file: 7",
        1,
    ),
    inspect(
        "an image that is not there",
        image(0, file_name="gone.jpg"),
        "error: images that are not in the folder: 1 (gone.jpg",
        1,
    ),
    inspect(
        "an image without a file name",
        image(0, file_name=None),
        "error: images and classes without a key that they need: 1 (image number 0: "
        "file_name null (it has id, file_name, width, height))",
        1,
    ),
    inspect(
        "an image of another size than the file says",
        image(0, width=63),
        "error: images of another size than the file says: 1 (sub folder/0.jpg: 63 x "
        "48, is 64 x 48)",
        1,
    ),
    inspect(
        "two images under one id",
        image(1, id=100),
        "error: images of different files under one id: 1 (100: ",
        1,
    ),
    inspect(
        "two classes under one id",
        lambda c: c["categories"].append(dict(id=7, name="bee")),
        "error: classes of different names under one id: 1 (7: Käfer, bee)",
        1,
    ),
    inspect(
        "two objects under one id",
        lambda c: c["annotations"][1].update(id=1),
        "warning: objects whose id another object has: 1 (object 1); renumbered",
        0,
    ),
    first(
        "an object of an image that is not listed",
        "error: objects whose image_id is not in the file: 1 (object 1: image 5)",
        image_id=5,
    ),
    first(
        "an object of a class that is not listed",
        "error: objects whose category_id is not in the file: 1 (object 1: class 5)",
        category_id=5,
    ),
    inspect(
        "item_id for image_id",
        lambda c: c["annotations"][0].update(
            item_id=c["annotations"][0].pop("image_id")
        ),
        "error: objects without a key that they need: 1 (object 1: no image_id (it "
        "has id, category_id, bbox, segmentation, area, iscrowd, item_id)",
        1,
    ),
    first(
        "an image's name for its id",
        "error: objects whose image_id is not in the file: 1 (object 1: image "
        '"0.jpg" (text) beside 100)',
        image_id="0.jpg",
    ),
    first(
        "iscrowd in words",
        "error: objects whose iscrowd or ignore is neither 0 nor 1: 1 (object 1: "
        'iscrowd "no" (text))',
        iscrowd="no",
    ),
    inspect(
        "a width in words",
        image(0, width="64 px"),
        "error: images whose width or height is not a number of pixels: 1 (sub "
        'folder/0.jpg: width "64 px" (text), height 48)',
        1,
    ),
    inspect(
        "images of another folder",
        lambda c: [
            i.update(file_name="cam1/" + i["file_name"].split("/")[-1])
            for i in c["images"]
        ],
        "error: images that are not in the folder: 6 (cam1/0.jpg (sub folder/0.jpg is "
        "not in a folder cam1)",
        1,
    ),
    inspect(
        "two names that lead to one image",
        lambda c: c["images"].append(dict(id=1, file_name="D:/cam1/0.jpg")),
        "error: different names of images that lead to one file: 1 (sub folder/0.jpg, "
        "D:/cam1/0.jpg -> sub folder/0.jpg)",
        1,
    ),
    inspect(
        "boxes as corners",
        lambda c: [
            a.update(bbox=[20, 20, 60, 40], segmentation=None) for a in c["annotations"]
        ],
        "error: boxes that look like two corners: read as COCO's x, y, width, height, "
        "many reach over the image's edge",
        1,
    ),
    Case(
        *("inspect_data", "a repair that leaves no object"),
        lambda t: [
            *file(lambda c: [a.update(image_id=5) for a in c["annotations"]])(t),
            *("--fix", t / "fixed"),
        ],
        "fixed was not written: nothing of the train split would be left to train on. "
        "Correct the errors above in its files",
    ),
    Case(
        *("inspect_data", "--allow-dropped and a box of no width"),
        lambda t: [
            *file(lambda c: c["annotations"][0].update(bbox=[20, 20, 0, 9]))(t),
            "--allow-dropped",
        ],
        "warning: boxes below one pixel: 1 (object 1 in ...; left out, because "
        "of --allow-dropped: they become background",
        0,
    ),
    first("a box of NaN", NO_BOX, bbox=[NAN, 2, 3, 4]),
    first("a box of infinite width", NO_BOX, bbox=[1, 2, INF, 4]),
    first("a box of three numbers", NO_BOX, bbox=[1, 2, 3]),
    first(
        "a box of negative width",
        "error: boxes of negative width or height: 1 (object 1 in",
        bbox=[20, 20, -9, 9],
    ),
    first(
        "a box of no width",
        "error: boxes below one pixel: 1 (object 1 in ...; write bbox in pixels, not "
        "as fractions from 0 to 1; --fix or --allow-dropped leaves them out",
        bbox=[20, 20, 0, 9],
    ),
    first(
        "a box outside its image",
        "error: boxes outside their image: 1 (object 1 in",
        bbox=[64, 0, 9, 9],
    ),
    first(
        "a box over the image's edge",
        "warning: boxes that reach over the image's edge: 1 (object 1 in ...; clipped",
        0,
        bbox=[-5, 8, 40, 30],
    ),
    first("a polygon of NaN", BAD_MASK, segmentation=[[1, 2, NAN, 4, 5, 6]]),
    first("a polygon of 7 numbers", BAD_MASK, segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
    first("run lengths of another size", BAD_MASK, segmentation=rle(width=65)),
    first(
        "run lengths that end too early",
        BAD_MASK,
        segmentation=dict(size=[48, 64], counts="a"),
    ),
    Case(
        *("train", "a box of NaN"),
        file(lambda c: c["annotations"][0].update(bbox=[NAN] * 4), DET),
        "error: the data has errors, see above. convnext-dense inspect-data",
    ),
    Case(
        *("train", "a config's file that is not JSON"),
        of_the_config("{"),
        "the annotations for train: .../instances_train.json is not JSON",
    ),
    Case(
        *("train", "a config's file without images"),
        of_the_config(EMPTY.replace('s": []}', 's": [{"id": 1, "name": "disc"}]}')),
        "the annotations for train: .../instances_train.json has no images",
    ),
    Case(
        *("train", "a config's file that is a device"),
        with_options(
            "train_dataloader.dataset.type=CocoDataset",
            "train_dataloader.dataset.ann_file=/dev/zero",
        ),
        "/dev/zero is a device: copy its content to a file, and name that",
    ),
    Case(
        *("train", "a config's file of other classes"),
        other_classes,
        "has none of the config's classes (disc, square, triangle, star, cross); its "
        "own are dog",
    ),
    Case(
        *("train", "a config's file that is not there"),
        with_options(
            "train_dataloader.dataset.type=CocoDataset",
            "train_dataloader.dataset.ann_file=gone.json",
        ),
        "the train data is not there: CocoDataset expects .../gone.json",
    ),
]
