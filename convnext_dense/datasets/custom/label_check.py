"""Finds problems in a folder of images and a folder of label maps."""

from collections import Counter
from pathlib import Path

import numpy as np

from convnext_dense.errors import InputError
from convnext_dense.utils.images import SMALLEST, for_all, list_images, read_images
from convnext_dense.utils.text import few, reason

from .label_maps import (
    IGNORED,
    SUFFIXES,
    UNKNOWN,
    NotALabelMap,
    read_label_map,
    unknown_colors,
)
from .label_split import LabelSplit
from .problems import NOT_WHOLE, TINY, UNREADABLE, Problems, error, warning

UNREADABLE_LABELS = error("label maps that cannot be read")
OTHER_SIZE = error("label maps of another size than their image")
AS_STORED = error(
    "images labelled as stored, which their EXIF orientation turns",
    "--fix turns the label maps",
)
NO_SUCH_COLOR = error(
    "label maps with colours that are not in the colour map",
    "add them to the file of --color-map; --fix ignores their pixels",
)
NO_SUCH_LABEL = error(
    "label maps with values that no class has",
    "name a class for each value: all of them with --classes, or a line for each in "
    "the file of --color-map; --fix ignores their pixels",
)
FEW_VALUES = error(
    "label values with large gaps between them",
    "say what each value means: --color-map with lines such as '128 128 128 person', "
    "or all --classes",
)
ONE_CLASS = error(
    "splits with one class",
    "give at least two classes; 255 is ignored: if it is a class in your data, say so "
    "with --color-map and lines such as '255 255 255 person'",
)

NO_LABELS = warning("images without a label map", "not used")
NO_IMAGE = warning("label maps without an image", "not used")
UNUSED = warning("classes without pixels", "the model cannot learn them")
ALL_IGNORED = warning("label maps whose pixels are all ignored", "look at them")

# Classes are counted in the label maps only if their values have no larger gaps: the
# largest value is below this many times the number of different values.
SPARSE = 4
# A label map with more different values is an image, or numbers each object.
MOST_VALUES = 1024
PROBED = 20  # images by which the ending of the label maps' names is found


def examine(
    folder: Path,
    labels: Path,
    name: str,
    classes: tuple[str, ...] | None = None,
    colors: list[list[int]] | None = None,
    zero: bool = True,
) -> LabelSplit:
    """Read every image and label map, and check them.

    Args:
        folder: the folder of the images, which may be in folders below it.
        labels: the folder of the label maps, which have the images' names.
        name: 'train' or 'val'.
        classes: the names of the classes; None counts the classes in the label maps.
        colors: rows of red, green, blue and class index.
        zero: whether 0 is a class.

    Raises:
        InputError: a folder is missing, or no image has a label map.
    """
    problems = Problems()
    pairs = _pairs(folder, labels, name, problems)
    image_files = read_images(
        (folder / image for image, _ in pairs), f"reading {name} images"
    )

    def read(label_map: str) -> tuple[tuple[int, int], Counter[int]] | str:
        return _size_and_pixels(labels / label_map, colors, zero)

    label_maps = [label_map for _, label_map in pairs]
    contents = for_all(read, label_maps, f"reading {name} label maps")

    split = LabelSplit(
        name, folder, labels, classes or (), colors, zero, problems=problems
    )
    for (image, label_map), content in zip(pairs, contents, strict=True):
        file = image_files[folder / image]
        if file.error:
            problems.add(UNREADABLE, f"{image}: {file.error}")
            continue
        if isinstance(content, str):
            problems.add(UNREADABLE_LABELS, f"{label_map}: {content}")
            continue
        size, pixels = content
        width, height = file.shown
        if size not in (file.shown, file.stored):
            sizes = f"{size[0]} x {size[1]}, image {width} x {height}"
            problems.add(OTHER_SIZE, f"{label_map}: {sizes}")
            continue
        if file.note:
            problems.add(NOT_WHOLE, f"{image}: {file.note}")
        if min(file.shown) < SMALLEST:
            problems.add(TINY, f"{image}: {width} x {height}")
        as_stored = size != file.shown
        if as_stored:
            problems.add(AS_STORED, image)
        split.pairs.append((image, label_map))
        split.sizes.append(file.shown)
        split.pixels.append(pixels)
        split.digests.append(file.digest)
        split.orientations.append(file.orientation if as_stored else 1)
    split.classes = classes or _count_classes(split, problems)
    _check_values(split, problems)
    return split


def _size_and_pixels(
    file: Path, colors: list[list[int]] | None, zero: bool
) -> tuple[tuple[int, int], Counter[int]] | str:
    """Width and height of a label map, and the number of pixels of each label.

    Returns the reason, as text, if the label map cannot be read.
    """
    try:
        label_map = read_label_map(file, colors, zero)
    except (NotALabelMap, InputError) as error:
        return str(error)
    except Exception as error:  # Pillow's readers raise errors of many types
        return reason(error)
    labels, numbers = np.unique(label_map, return_counts=True)
    if len(labels) > MOST_VALUES:
        return f"it has {len(labels)} different values: give each class one value"
    pixels = Counter(dict(zip(labels.tolist(), numbers.tolist(), strict=True)))
    del pixels[IGNORED]
    height, width = label_map.shape
    return (width, height), pixels


def _pairs(
    folder: Path, labels: Path, name: str, problems: Problems
) -> list[tuple[str, str]]:
    """Pair each image with the label map of its name.

    The names of all label maps may have one more ending, such as '_mask'.
    """
    for path, content, flag in (
        (folder, "images", "images"),
        (labels, "label maps", "labels"),
    ):
        if not path.is_dir():
            raise InputError(
                f"the {name} {content}: there is no folder {path}; name it as "
                f"--{name}-{flag}"
            )
    maps = {
        path.relative_to(labels).with_suffix("").as_posix(): path
        for path in sorted(labels.rglob("*"))
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    }
    stems = {image: str(Path(image).with_suffix("")) for image in list_images(folder)}
    # For img_1.jpg and img_1_mask.png: what most label maps have after the image's
    # name; nothing, if that is as frequent.
    endings = Counter(
        map_name[len(stem) :]
        for stem in list(stems.values())[:PROBED]
        for map_name in maps
        if map_name.startswith(stem)
    )
    ending = max(endings, key=lambda text: (endings[text], text == ""), default="")
    pairs = []
    for image, stem in stems.items():
        label_map = maps.pop(stem + ending, None)
        if label_map is None:
            problems.add(NO_LABELS, image)
        else:
            pairs.append((image, label_map.relative_to(labels).as_posix()))
    for label_map in maps.values():
        problems.add(NO_IMAGE, label_map.relative_to(labels).as_posix())
    if not pairs:
        raise InputError(
            f"the {name} data has no pairs: {folder} has {len(stems)} images and "
            f"{labels} {len(maps)} label maps (.png) with no name in common; give "
            "each label map the name of its image"
        )
    return pairs


def _count_classes(split: LabelSplit, problems: Problems) -> tuple[str, ...]:
    """Names for the labels from 0 to the largest: 'class 0', 'class 1', ..."""
    values = sorted(set().union(*split.pixels) - {UNKNOWN})
    number = min(max(values, default=0) + 1, IGNORED)
    if number > SPARSE * len(values):
        for value in values:
            problems.add(FEW_VALUES, value)
    return tuple(f"class {label}" for label in range(number))


def _check_values(split: LabelSplit, problems: Problems) -> None:
    """Compare the labels of each label map with the classes.

    Labels that no class has are removed from ``split.pixels``.
    """
    for (_, label_map), pixels in zip(split.pairs, split.pixels, strict=True):
        if split.colors is not None and pixels.pop(UNKNOWN, 0):
            colors = unknown_colors(split.labels / label_map, split.colors)
            problems.add(NO_SUCH_COLOR, f"{label_map}: {colors}")
        strange = [label for label in pixels if not 0 <= label < len(split.classes)]
        if strange:
            problems.add(NO_SUCH_LABEL, f"{label_map}: {few(strange, 8)}")
        for label in strange:
            del pixels[label]
        if not pixels:
            problems.add(ALL_IGNORED, label_map)
    used = set().union(*split.pixels)
    if len(used) < 2 and split.name == "train":
        problems.add(ONE_CLASS, split.name)
    for label, name in enumerate(split.classes):
        if label not in used:
            problems.add(UNUSED, name)
