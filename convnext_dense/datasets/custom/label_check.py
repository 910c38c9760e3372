"""Look through a folder of images and one of label maps."""

from collections import Counter
from pathlib import Path

import numpy as np

from convnext_dense.errors import InputError
from convnext_dense.utils.images import SMALLEST, for_all, list_images, look

from .label_maps import (
    IGNORED,
    SUFFIXES,
    UNKNOWN,
    NotALabelMap,
    color_names,
    read_label_map,
)
from .label_split import LabelPart
from .problems import Findings, Kind

_OUT = "--fix leaves them out"

UNREADABLE = Kind(True, "images that cannot be read or resized", _OUT)
UNREADABLE_LABELS = Kind(True, "label maps that cannot be read", _OUT)
OTHER_SIZE = Kind(True, "label maps of another size than their image", _OUT)
AS_STORED = Kind(
    True,
    "images labelled as stored, which their EXIF orientation turns",
    "--fix turns the label maps",
)
NO_SUCH_COLOR = Kind(
    True, "label maps with colours that are not in the colour map", "--fix ignores them"
)
NO_SUCH_LABEL = Kind(
    True,
    "label maps with values that are not of a class",
    "give all --classes, or --color-map, a line for each value; --fix ignores them",
)
FEW_VALUES = Kind(
    True,
    "label values with great gaps between them",
    "say what each means: --color-map with lines such as '128 128 128 person', or "
    "all --classes",
)
ONE_CLASS = Kind(
    True,
    "splits with one class",
    "nothing to tell apart; 255 is ignored: if it is a class here, say so with "
    "--color-map and lines such as '255 255 255 person'",
)
NO_LABELS = Kind(False, "images without a label map", "not used")
NO_IMAGE = Kind(False, "label maps without an image", "not used")
TINY = Kind(
    False,
    "images with a side below 32 pixels",
    "they are enlarged, if the config resizes",
)
UNUSED = Kind(False, "classes without pixels", "nothing to learn for them")
ALL_IGNORED = Kind(False, "label maps with nothing but ignored pixels", "look at them")


def examine(
    folder: Path,
    labels: Path,
    name: str,
    classes: tuple[str, ...] | None = None,
    colors: list[list[int]] | None = None,
    zero: bool = True,
) -> LabelPart:
    """Look through every image and label map.

    Args:
        folder: the images, in folders of it too.
        labels: the label maps, under the images' names.
        name: 'train' or 'val'.
        classes: their names; None counts them in the labels.
        colors: rows of red, green, blue and class index.
        zero: whether 0 is a class.

    Raises:
        InputError: there is no such folder, or no pair of an image and a label map.
    """
    findings = Findings()
    pairs = _pairs(folder, labels, name, findings)
    looks = look((folder / image for image, _ in pairs), f"reading {name} images")

    def values(label: str):
        try:
            read = read_label_map(labels / label, colors, zero)
        except NotALabelMap as error:
            return str(error)
        except Exception as error:  # Pillow's readers raise whatever they stumble over
            return f"{type(error).__name__}: {error}"
        found, numbers = np.unique(read, return_counts=True)
        counter = Counter(dict(zip(found.tolist(), numbers.tolist(), strict=True)))
        del counter[IGNORED]
        return read.shape[::-1], counter

    label_maps = [label for _, label in pairs]
    read = for_all(values, label_maps, f"reading {name} label maps")

    part = LabelPart(
        *(name, folder, labels, classes or (), [], [], [], [], [], colors, zero),
        findings,
    )
    for (image, label), what in zip(pairs, read, strict=True):
        one = looks[folder / image]
        if one.trouble:
            findings.add(UNREADABLE, f"{image}: {one.trouble}")
            continue
        if isinstance(what, str):
            findings.add(UNREADABLE_LABELS, f"{label}: {what}")
            continue
        size, counter = what
        if size not in (one.shown, one.stored):
            (w, h), (width, height) = size, one.shown
            findings.add(OTHER_SIZE, f"{label}: {w} x {h}, image {width} x {height}")
            continue
        if min(one.shown) < SMALLEST:
            findings.add(TINY, f"{image}: {one.shown[0]} x {one.shown[1]}")
        turned = size != one.shown
        if turned:
            findings.add(AS_STORED, image)
        part.pairs.append((image, label))
        part.sizes.append(one.shown)
        part.pixels.append(counter)
        part.digests.append(one.digest)
        part.turns.append(one.orientation if turned else 1)
    part.classes = classes or _count_classes(part, findings)
    _check_values(part, findings)
    return part


def _pairs(folder: Path, labels: Path, name: str, findings: Findings):
    """(image, label map) pairs of the same name, but for an ending all have."""
    for path, what in ((folder, "images"), (labels, "label maps")):
        if not path.is_dir():
            raise InputError(f"the {name} {what}: there is no folder {path}")
    maps = {
        path.relative_to(labels).with_suffix("").as_posix(): path
        for path in sorted(labels.rglob("*"))
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    }
    stems = {image: str(Path(image).with_suffix("")) for image in list_images(folder)}
    # img_1.jpg and img_1_mask.png: what most label maps have after the image's name.
    endings = Counter(
        there[len(stem) :]
        for stem in list(stems.values())[:20]
        for there in maps
        if there.startswith(stem)
    )
    ending = max(endings, key=lambda one: (endings[one], one == ""), default="")
    pairs = []
    for image, stem in stems.items():
        path = maps.pop(stem + ending, None)
        if path is None:
            findings.add(NO_LABELS, image)
        else:
            pairs.append((image, path.relative_to(labels).as_posix()))
    for path in maps.values():
        findings.add(NO_IMAGE, path.relative_to(labels).as_posix())
    if not pairs:
        raise InputError(
            f"the {name} data has no pairs: {folder} has {len(stems)} images and "
            f"{labels} {len(maps)} label maps (.png) with no name in common"
        )
    return pairs


def _count_classes(part: LabelPart, findings: Findings) -> tuple[str, ...]:
    """Names for the labels from 0 to the largest."""
    values = sorted(set().union(*part.pixels) - {UNKNOWN})
    number = min(max(values, default=0) + 1, IGNORED)
    if number > 4 * len(values):
        for value in values:
            findings.add(FEW_VALUES, value)
    return tuple(f"class {label}" for label in range(number))


def _check_values(part: LabelPart, findings: Findings) -> None:
    """Compare the values of each label map with the classes."""
    for (_, label), counter in zip(part.pairs, part.pixels, strict=True):
        if counter.pop(UNKNOWN, 0):
            colors = color_names(part.labels / label, part.colors)
            findings.add(NO_SUCH_COLOR, f"{label}: {colors}")
        strange = [value for value in counter if value >= len(part.classes)]
        if strange:
            findings.add(NO_SUCH_LABEL, f"{label}: {', '.join(map(str, strange))}")
        for value in strange:
            del counter[value]
        if not counter:
            findings.add(ALL_IGNORED, label)
    used = set().union(*part.pixels)
    if len(used) < 2 and part.name == "train":
        findings.add(ONE_CLASS, part.name)
    for label, name in enumerate(part.classes):
        if label not in used:
            findings.add(UNUSED, name)
