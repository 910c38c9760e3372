"""Mistakes in label maps and their options."""

import os
from collections.abc import Callable

import numpy as np

from ..helpers.custom_data import label_array, photograph, save_labels
from ..helpers.hostile_images import png
from .case import DET, SEG, Case, Maker, write


def folders(change: Callable, *flags, config=None) -> Maker:
    """Options for four images and their label maps.

    Args:
        change: changes the folder that has ``images`` and ``labels``.
        flags: more options.
        config: for tools that take one.
    """

    def arguments(t):
        for i in range(4):
            photograph(t / f"images/{i}.jpg", i)
            save_labels(label_array(i), t / f"labels/{i}.png")
        change(t)
        where = ["--train-images", t / "images", "--train-labels", t / "labels"]
        return [*([config] if config else []), *where, *flags]

    return arguments


def inspect(mistake: str, change: Callable, says: str, code: int = 2, *flags) -> Case:
    """A mistake that convnext-dense inspect-data reports."""
    return Case("inspect_data", mistake, folders(change, *flags), says, code)


def as_is(t):
    """Change nothing."""


def first(array, label_format: str = "grey") -> Callable:
    """Write ``array`` as the first label map."""
    array = np.asarray(array, np.uint8)
    return lambda t: save_labels(array, t / "labels/0.png", label_format)


def every(array) -> Callable:
    """Write ``array`` as every label map."""

    def change(t):
        for i in range(4):
            save_labels(np.asarray(array, np.uint8), t / f"labels/{i}.png")

    return change


def instead(make: Callable) -> Callable:
    """Let ``make`` write the first label map."""

    def change(t):
        (t / "labels/0.png").unlink()
        make(t / "labels/0.png")

    return change


def in_32_bits(array) -> Callable:
    """Write ``array`` as the first label map, with 32 bits a pixel."""

    def change(t):
        (t / "labels/0.png").unlink()
        save_labels(array, t / "labels/0.tif", "32 bits")

    return change


def without(folder: str) -> Callable:
    """Remove the files of a folder."""

    def change(t):
        for file in (t / folder).iterdir():
            file.unlink()

    return change


def renamed(before: str, after: str) -> Callable:
    """Give each of four files another name."""
    return lambda t: [
        (t / before.format(i)).rename(t / after.format(i)) for i in range(4)
    ]


def cityscapes(t):
    """Give the label maps the names of Cityscapes' two versions."""
    for i in range(4):
        (t / f"images/{i}.jpg").rename(t / f"images/{i}_leftImg8bit.jpg")
        save_labels(LABELS, t / f"labels/{i}_gtFine_color.png", "colors")
        (t / f"labels/{i}.png").rename(t / f"labels/{i}_gtFine_labelTrainIds.png")


def cut(t):
    """Cut the first label map short."""
    file = t / "labels/0.png"
    write(file, file.read_bytes()[:60])


def beside(text: str | bytes, change: Callable = as_is) -> Callable:
    """Write ``text`` into ``m.txt``, and apply ``change``."""
    return lambda t: (change(t), write(t / "m.txt", text))


LABELS = label_array()
COLOR_MAP = "--color-map", "m.txt"
# A ramp from 0 to 255 over 32 pixels, in which no value fills a square.
SOFT = np.add.outer(np.arange(48), 8 * np.arange(-16, 48)).clip(0, 255)

CASES = [
    Case(
        *("train", "label maps for a detector"),
        folders(as_is, config=DET),
        "the config is for object detection, and --train-labels gives label maps, for "
        "semantic segmentation: give a COCO file (--train-json and --train-images), or "
        "use a config of configs/seg",
    ),
    inspect(
        "no label maps",
        without("labels"),
        "the train data has no pairs: .../images has 4 images (0.jpg, 1.jpg and 2 "
        "more) and .../labels 0 label maps with no name in common. Label maps are "
        ".png, .tif, .tiff, .bmp, .gif, .npy files, each with the name of its image",
    ),
    inspect(
        "no images",
        without("images"),
        "the train data has no pairs: .../images has 0 images",
    ),
    inspect(
        "YOLO labels for label maps",
        renamed("labels/{}.png", "labels/{}.txt"),
        "and .../labels 0 label maps with no name in common. .../labels has 4 .txt "
        "files; .txt files are perhaps YOLO labels: give their data set's folder as "
        "--data, for a detector",
    ),
    inspect(
        "label maps with other names",
        renamed("labels/{}.png", "labels/front{}.png"),
        "with no name in common. The name most like 0.jpg is front0.png",
    ),
    inspect(
        "half of the images without a label map",
        lambda t: [(t / f"labels/{i}.png").unlink() for i in (1, 2)],
        "the train data: 2 of 4 images have no label map, such as 1.jpg. Give both "
        "files of a pair one name, or move files without a partner into another folder",
    ),
    inspect(
        "two label maps for an image",
        lambda t: save_labels(LABELS, t / "labels/0_mask.png"),
        "0.png, 0_mask.png are label maps that fit one image, 0.jpg: move those that "
        "are not to be trained on into another folder",
    ),
    inspect(
        "two images for a label map",
        lambda t: photograph(t / "images/0.png"),
        "0.jpg, 0.png are images of one name, and the label map 0.png fits all of them",
    ),
    inspect(
        "label maps as images",
        lambda t: [save_labels(LABELS, t / f"{f}/8.png") for f in ("images", "labels")],
        "error: images that are the same file as their label map: 1 (8.png); name the "
        "folder of the photographs",
        1,
    ),
    inspect(
        "label maps that are named by another word",
        renamed("labels/{}.png", "labels/{}_mask.png"),
        "note: pairs of an image and a label map whose names differ: 4 (0.jpg and "
        "0_mask.png, ",
        0,
    ),
    inspect(
        "label maps of Cityscapes in several versions",
        cityscapes,
        "note: label maps in several versions: 4 (0_gtFine_labelTrainIds.png, not "
        "color, ",
        0,
    ),
    inspect(
        "JPEGs as label maps",
        instead(lambda file: photograph(file.with_suffix(".jpg"), 9)),
        "error: label maps that cannot be read: 1 (0.jpg: it is a JPEG, which changes "
        "values: write it again as PNG, from its source)",
        1,
    ),
    inspect(
        "label maps with soft edges",
        first(SOFT),
        "error: label maps with values between those of the classes, at their edges: 1 "
        "(0.png: ",
        1,
    ),
    inspect(
        "values of -1",
        in_32_bits(label_array().astype(np.int32) % 255 - 1),
        "note: label maps with negative or missing values: 1 (0.tif: 768 pixels); "
        "these pixels are ignored, as 255 is",
        0,
    ),
    inspect(
        "values of 0.5",
        instead(lambda file: np.save(file.with_suffix(".npy"), LABELS / 2)),
        "(0.npy: it has values that are not whole numbers, such as ",
        1,
    ),
    inspect(
        "one-hot label maps",
        instead(lambda file: np.save(file.with_suffix(".npy"), np.eye(3)[LABELS % 3])),
        "(0.npy: its shape is (48, 64, 3): save one class index for each pixel",
        1,
    ),
    inspect(
        "an image without a label map",
        lambda t: (t / "labels/0.png").unlink(),
        "warning: images without a label map: 1 (0.jpg); not used",
        0,
    ),
    inspect(
        "a label map of another size",
        first(LABELS[:40]),
        "error: label maps of another size than their image: 1 (0.png: 64 x 40, image "
        "64 x 48)",
        1,
    ),
    inspect(
        "a label map cut short",
        cut,
        "error: label maps that cannot be read: 1 (0.png: ",
        1,
    ),
    inspect(
        "text named .png",
        lambda t: write(t / "labels/0.png", "no image"),
        "error: label maps that cannot be read: 1 (0.png: ",
        1,
    ),
    inspect(
        "values beyond the classes",
        first(np.where(LABELS == 2, 7, LABELS)),
        "error: label maps with values that no class has: 1 (0.png: 7)",
        1,
        *("--classes", "a", "b", "c"),
    ),
    inspect(
        "values with gaps",
        every(np.where(LABELS == 1, 200, 0)),
        "error: label values with large gaps between them: 2 (0, 200); say what each "
        "value means: --classes 0:NAME0 200:NAME200",
        1,
    ),
    inspect(
        "a mask of 0 and 255",
        every(np.where(LABELS == 1, 255, 0)),
        "error: splits with one class: 1 (train); give at least two classes; 255 is "
        "ignored: if it is a class in your data, name it, too: --classes 0:NAME "
        "255:OTHER_NAME",
        1,
    ),
    inspect(
        "one name too few",
        as_is,
        "error: label maps with one value more than there are classes: 4 (0.png: 2, "
        "...); if label 0 is not a class and label 1 has the first name, add "
        "--reduce-zero-label; else name label 0, too",
        1,
        *("--classes", "a", "b"),
    ),
    inspect(
        "ids from 1, and labels from 0",
        as_is,
        "error: label maps with the value 0, which the class list does not have: 4 "
        "(0.png: 0, ...); if label 0 is not a class, add --reduce-zero-label",
        1,
        *("--classes", "1:a", "2:b"),
    ),
    inspect(
        "a label map of nothing but 255",
        first(LABELS * 0 + 255),
        "warning: label maps whose pixels are all ignored: 1 (0.png); look at them",
        0,
    ),
    inspect(
        "label maps of nothing but 255",
        every(LABELS * 0 + 255),
        "error: splits with one class: 1 (train); give at least two classes",
        1,
    ),
    inspect(
        "colours without a colour map",
        first(LABELS, "colors"),
        "error: label maps that cannot be read: 1 (0.png: its pixels are colours; name "
        "the class of each with --color-map)",
        1,
    ),
    inspect(
        "a colour that the colour map lacks",
        beside(
            "0 0 0 a\n1 1 1 b\n2 2 2 c\n255 255 255 ignore", first(LABELS, "colors")
        ),
        "error: label maps with colours that are not in the colour map: 1 (0.png: (",
        1,
        *COLOR_MAP,
    ),
    inspect(
        "a colour map that is not there",
        as_is,
        "--color-map m.txt cannot be read: ",
        2,
        *COLOR_MAP,
    ),
    inspect(
        "a colour map that is no text",
        beside(b"\xff\xfe\x00"),
        "--color-map m.txt is not text in UTF-8: ...; save it as UTF-8",
        2,
        *COLOR_MAP,
    ),
    inspect(
        "a colour map of 300 classes",
        beside("\n".join(f"{i % 256} {i // 256} 0 class {i}" for i in range(300))),
        "--color-map m.txt has 300 classes: label maps have at most 255, as 255 is",
        2,
        *COLOR_MAP,
    ),
    inspect(
        "a colour map with a million spaces",
        beside("road" + " " * 10**6),
        "--color-map m.txt has no colours: give a line for each class",
        2,
        *COLOR_MAP,
    ),
    inspect(
        "a colour map nested 100 000 deep",
        beside('{"road":' * 100_000),
        "--color-map m.txt is nested too deeply",
        2,
        *COLOR_MAP,
    ),
    inspect(
        "a colour map without colours",
        beside("road\nsky"),
        "--color-map m.txt has no colours: give a line for each class",
        2,
        *COLOR_MAP,
    ),
    inspect(
        "one colour for two classes",
        beside("0 0 0 a\n0 0 0 b"),
        "--color-map m.txt: a and b both have the colour (0, 0, 0): give each class "
        "its own",
        2,
        *COLOR_MAP,
    ),
    inspect(
        "--classes with a name twice",
        as_is,
        "--classes: a is given twice: give each class one name",
        2,
        *("--classes", "a", "a", "b"),
    ),
    inspect(
        "--classes with an empty file",
        beside("\n"),
        "--classes m.txt has no names: write one on each line",
        2,
        *("--classes", "m.txt"),
    ),
    inspect(
        "--classes with a heading",
        beside("name\nroad\ncar"),
        "--classes m.txt, line 1: 'name' looks like a heading: remove it. Write a name "
        "on each line, or an id and a name such as '0 road'",
        2,
        *("--classes", "m.txt"),
    ),
    inspect(
        "--classes with ids on some lines",
        beside("0 road\n1 car\nsky"),
        "--classes m.txt, line 3: 'sky' has no id, and other lines have one",
        2,
        *("--classes", "m.txt"),
    ),
    inspect(
        "--classes with an id twice",
        beside("1 road\n1 car"),
        "--classes m.txt: road and car both have the id 1: give each class its own",
        2,
        *("--classes", "m.txt"),
    ),
    inspect(
        "--classes with several columns",
        beside("road,yes\ncar,no"),
        "--classes m.txt, line 1: 'road,yes' has several columns or names",
        2,
        *("--classes", "m.txt"),
    ),
    inspect(
        "--classes with a colour map",
        beside("road:1,2,3::\ncar:4,5,6::"),
        "--classes m.txt is a colour map: it has a colour for each class. Give it as "
        "--color-map m.txt",
        2,
        *("--classes", "m.txt"),
    ),
    inspect(
        "--classes with JSON of something else",
        beside('{"images": [1]}'),
        "--classes m.txt is not a list of classes: write",
        2,
        *("--classes", "m.txt"),
    ),
    inspect(
        "--classes with a file that is not there",
        as_is,
        "--classes m.txt: there is no such file",
        2,
        *("--classes", "m.txt"),
    ),
    inspect(
        "--classes with a file that is no text",
        beside(b"\xff\xfe\x00"),
        "--classes m.txt is not text in UTF-8: ...; save it as UTF-8",
        2,
        *("--classes", "m.txt"),
    ),
    inspect(
        "--classes with a pipe",
        lambda t: os.mkfifo(t / "pipe"),
        "--classes pipe is a pipe (FIFO): copy its content to a file, and name that",
        2,
        *("--classes", "pipe"),
    ),
    inspect(
        "--classes with a name of 100 000 characters",
        as_is,
        "cannot be the name of a class: it has 100000 characters, more than 200",
        2,
        *("--classes", "a", "x" * 100_000),
    ),
    inspect(
        "--classes with a file of a million names",
        beside("\n".join(map(str, range(10**6)))),
        "--classes m.txt has 1000000 classes: label maps have at most 255",
        2,
        *("--classes", "m.txt"),
    ),
    inspect(
        "a pipe as a label map",
        instead(lambda file: os.mkfifo(file)),
        "error: label maps that cannot be read: 1 (0.png: ...0.png is a pipe (FIFO)",
        1,
    ),
    inspect(
        "a label map of 10^10 pixels",
        instead(lambda file: write(file, png(100_000, 100_000))),
        "error: label maps that cannot be read: 1 (0.png: ",
        1,
    ),
    inspect(
        "PostScript named .png",
        instead(lambda file: write(file, "%!PS-Adobe-3.0 EPSF-3.0\n")),
        "error: label maps that cannot be read: 1 (0.png: it is a PostScript file",
        1,
    ),
    inspect(
        "a label map of 3072 different values",
        in_32_bits(np.arange(3072).reshape(48, 64)),
        "it has 3072 different values: give each class one value",
        1,
    ),
    inspect(
        "a label map with values of 10^9",
        in_32_bits(LABELS + np.int64(10**9)),
        "error: label maps with values that no class has: 1 (0.tif: 1000000000, ",
        1,
    ),
    inspect(
        "--boxes-only",
        as_is,
        "--boxes-only cannot be used with label maps: it is for a COCO file",
        2,
        "--boxes-only",
    ),
    Case(
        *("train", "a label map of another size"),
        folders(first(LABELS[:40]), config=SEG),
        "error: the data has errors, see above. convnext-dense inspect-data",
    ),
]
