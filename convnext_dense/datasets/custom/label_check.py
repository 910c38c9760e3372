"""Finds problems in a folder of images and a folder of label maps."""

import filecmp
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convnext_dense.errors import InputError
from convnext_dense.utils.images import SMALLEST, for_all, read_images
from convnext_dense.utils.text import few, reason

from .label_files import MISSING, NotALabelMap
from .label_maps import IGNORED, UNKNOWN, read_numbers, to_labels, unknown_colors
from .label_pairs import pair_folders
from .label_split import LabelSplit
from .problems import NOT_WHOLE, TINY, UNREADABLE, Problems, error, note, warning
from .smoothing import SPARSE, is_smoothed

UNREADABLE_LABELS = error("label maps that cannot be read")
SMOOTHED = error(
    "label maps with values between those of the classes, at their edges",
    "resizing, drawing or a JPEG has smoothed them: write them again as PNG, resized "
    "with nearest-neighbour interpolation",
)
OTHER_SIZE = error("label maps of another size than their image")
AS_STORED = error(
    "images labelled as stored, which their EXIF orientation turns",
    fix="turns the label maps",
)
ITS_OWN_LABELS = error(
    "images that are the same file as their label map",
    "name the folder of the photographs as --train-images or --val-images",
)
NO_SUCH_COLOR = error(
    "label maps with colours that are not in the colour map",
    "add them to the file of --color-map",
    "ignores their pixels",
)
NO_SUCH_LABEL = error(
    "label maps with values that no class has",
    "name a class for each value: all of them with --classes, or a line for each in "
    "the file of --color-map",
    "ignores their pixels",
)
ONE_MORE_LABEL = error(
    "label maps with one value more than there are classes",
    "if label 0 is not a class and label 1 has the first name, add "
    "--reduce-zero-label; else name label 0, too",
    fix="",
)
NO_ZERO = error(
    "label maps with the value 0, which the class list does not have",
    "if label 0 is not a class, add --reduce-zero-label; else add a line for 0 to the "
    "class list",
    fix="",
)
FEW_VALUES = error(
    "label values with large gaps between them",
    "say what each value means: --classes",
    fix="",
)
ONE_CLASS = error("splits with one class", "give at least two classes", fix="")

MISSING_VALUES = note(
    "label maps with negative or missing values", "these pixels are ignored, as 255 is"
)
NO_LABELS = warning("images without a label map", "not used")
NO_IMAGE = warning("label maps without an image", "not used")
NOT_PHOTOGRAPHS = note("label maps in the folder of the images", "not used as images")
BY_WORDS = note(
    "pairs of an image and a label map whose names differ",
    "check that they belong together",
)
ONE_VERSION = note("label maps in several versions", "the others are not used")
UNUSED = warning("classes without pixels", "the model cannot learn them")
IN_TRAIN_ONLY = warning(
    "classes with pixels in the training split only", "they are not validated"
)
IN_VAL_ONLY = warning(
    "classes with pixels in the validation split only", "the model cannot learn them"
)
ALL_IGNORED = warning("label maps whose pixels are all ignored", "look at them")

# A label map with more different values is an image, or numbers each object.
MOST_VALUES = 1024


class _Content(NamedTuple):
    """What was read from a label map.

    Attributes:
        size: width and height.
        pixels: the number of pixels of each label.
        missing: the number of pixels with negative or missing values.
        strange: values that no class of a list with ids has.
        has_ignored: whether the value 255 is there and no class has it.
    """

    size: tuple[int, int]
    pixels: Counter[int]
    missing: int
    strange: list[int]
    has_ignored: bool


class _SmoothedError(ValueError):
    """The values of a label map are smoothed; the message names some."""


def examine(
    folder: Path,
    labels: Path,
    name: str,
    classes: tuple[str, ...] | None = None,
    colors: list[list[int]] | None = None,
    zero: bool = True,
    ids: list[int] | None = None,
) -> LabelSplit:
    """Read every image and label map of a split, and check them.

    Args:
        classes: the names of the classes; None counts the classes in the label maps.

    Raises:
        InputError: as ``read``.
    """
    split = read(folder, labels, name, classes, colors, zero, ids)
    check([split], classes)
    return split


def read(
    folder: Path,
    labels: Path,
    name: str,
    classes: tuple[str, ...] | None = None,
    colors: list[list[int]] | None = None,
    zero: bool = True,
    ids: list[int] | None = None,
) -> LabelSplit:
    """Read every image and label map of a split; ``check`` must follow.

    Args:
        folder: the folder of the images, which may be in folders below it.
        labels: the folder of the label maps, whose names have the images' names. It
            may be the folder of the images.
        name: 'train' or 'val'.
        classes: the names of the classes; None if they are to be counted.
        colors: rows of red, green, blue and class index.
        zero: whether 0 is a class.
        ids: the value of each class; None if the values are the class indices.

    Raises:
        InputError: a folder is missing, the names are ambiguous, or half of the images
            or label maps have no partner.
    """
    split = LabelSplit(name, folder, labels, (), colors, zero, ids=ids)
    problems = split.problems
    pairs = _pairs(folder, labels, name, problems, colors is not None)
    image_files = read_images(
        (folder / image for image, _ in pairs), f"reading {name} images"
    )

    def content_of(label_map: str) -> _Content | ValueError | str:
        return _content(labels / label_map, classes, colors, zero, ids)

    label_maps = [label_map for _, label_map in pairs]
    contents = for_all(content_of, label_maps, f"reading {name} label maps")

    for (image, label_map), content in zip(pairs, contents, strict=True):
        file = image_files[folder / image]
        if file.error:
            problems.add(UNREADABLE, f"{image}: {file.error}")
            continue
        if _is_same(folder / image, labels / label_map):
            problems.add(ITS_OWN_LABELS, image)
            continue
        if isinstance(content, _SmoothedError):
            problems.add(SMOOTHED, f"{label_map}: {content}")
            continue
        if not isinstance(content, _Content):
            problems.add(UNREADABLE_LABELS, f"{label_map}: {content}")
            continue
        size = content.size
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
        if content.missing:
            problems.add(MISSING_VALUES, f"{label_map}: {content.missing} pixels")
        split.pairs.append((image, label_map))
        split.sizes.append(file.shown)
        split.pixels.append(content.pixels)
        split.strange.append(content.strange)
        split.digests.append(file.digest)
        split.orientations.append(file.orientation if as_stored else 1)
        split.has_ignored |= content.has_ignored
    return split


def check(splits: Sequence[LabelSplit], classes: tuple[str, ...] | None) -> None:
    """Give all splits of a data set their classes, and compare the labels with them.

    Labels that no class has are removed from the splits' ``pixels``.

    Args:
        splits: what ``read`` returned, the training split first.
        classes: the names of the classes; None counts the classes in the label maps of
            all splits.
    """
    names = classes or _count_classes(splits)
    for split in splits:
        split.classes = names
        split.problems.fixable = bool(split.pairs)
        _check_values(split, splits)
    _check_used(splits)


def _content(
    file: Path,
    classes: tuple[str, ...] | None,
    colors: list[list[int]] | None,
    zero: bool,
    ids: list[int] | None,
) -> _Content | ValueError | str:
    """What a label map has; the reason, if it cannot be read."""
    try:
        numbers = read_numbers(file, colors)
        values, counts = np.unique(numbers, return_counts=True)
        if len(values) > MOST_VALUES:
            return f"it has {len(values)} different values: give each class one value"
        labels = to_labels(values, zero, ids)
        # A class list that leaves out one value is right, or lacks a zero label.
        named = labels == IGNORED
        if classes:
            named |= (labels >= 0) & (labels < len(classes))
        explained = classes and np.count_nonzero(~named) <= 1
        if not (colors or explained) and is_smoothed(numbers, values, counts):
            return _SmoothedError(
                f"{len(values)} values, {few(values[values >= 0].tolist(), 4)}"
            )
    except (NotALabelMap, InputError) as error:
        return str(error)
    except Exception as error:  # Pillow's readers raise errors of many types
        return reason(error)
    pixels: Counter[int] = Counter()
    for label, count in zip(labels.tolist(), counts.tolist(), strict=True):
        pixels[label] += count
    del pixels[IGNORED]
    strange: list[int] = []
    if ids is not None and pixels.pop(UNKNOWN, 0):
        strange = values[labels == UNKNOWN].tolist()
    height, width = numbers.shape
    missing = int(counts[values == MISSING].sum())
    has_ignored = bool(((values == IGNORED) & (labels == IGNORED)).any())
    return _Content((width, height), pixels, missing, strange, has_ignored)


def _is_same(image: Path, label_map: Path) -> bool:
    """Whether an image and its label map are one file, or copies."""
    if os.path.getsize(image) != os.path.getsize(label_map):
        return False
    return filecmp.cmp(image, label_map, shallow=False)


def _pairs(
    folder: Path, labels: Path, name: str, problems: Problems, colored: bool
) -> list[tuple[str, str]]:
    """Pair each image with its label map, and note how.

    Raises:
        InputError: as ``read``.
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
    pairing, not_photographs = pair_folders(folder, labels, name, colored)
    for image in pairing.images:
        problems.add(NO_LABELS, image)
    for label_map in pairing.maps:
        problems.add(NO_IMAGE, label_map)
    for file in not_photographs:
        problems.add(NOT_PHOTOGRAPHS, file)
    for image in pairing.by_words:
        problems.add(BY_WORDS, f"{image} and {pairing.pairs[image]}")
    for label_map, others in pairing.versions:
        problems.add(ONE_VERSION, f"{label_map}, not {', '.join(others)}")
    return sorted(pairing.pairs.items())


def _count_classes(splits: Sequence[LabelSplit]) -> tuple[str, ...]:
    """Names for the labels from 0 to the largest: 'class 0', 'class 1', ..."""
    used = {label for split in splits for pixels in split.pixels for label in pixels}
    values = sorted(used - {UNKNOWN})
    number = min(max(values, default=0) + 1, IGNORED)
    if number > SPARSE * len(values):
        shift = 0 if splits[0].zero else 1
        stored = [value + shift for value in values]
        if any(split.has_ignored for split in splits):
            stored.append(IGNORED)
        names = " ".join(f"{value}:NAME{value}" for value in stored[:8])
        more = " ..." if len(stored) > 8 else ""
        remedy = f"{FEW_VALUES.remedy} {names}{more}"
        if IGNORED in stored:
            remedy += f", without {IGNORED} if it is not a class"
        for value in values:
            splits[0].problems.add(FEW_VALUES._replace(remedy=remedy), value)
    return tuple(f"class {label}" for label in range(number))


def _check_values(split: LabelSplit, splits: Sequence[LabelSplit]) -> None:
    """Compare the labels of each label map with the classes."""
    number = len(split.classes)
    labels = {label for s in splits for pixels in s.pixels for label in pixels}
    # Labels 0 to N or 1 to N, and N names.
    one_more = split.ids is None and split.colors is None and split.zero
    one_more = one_more and max(labels, default=0) == number
    no_zero = split.ids is not None and min(split.ids) == 1 and split.zero
    for i, (_, label_map) in enumerate(split.pairs):
        pixels = split.pixels[i]
        if split.colors is not None and pixels.pop(UNKNOWN, 0):
            colors = unknown_colors(split.labels / label_map, split.colors)
            split.problems.add(NO_SUCH_COLOR, f"{label_map}: {colors}")
        strange = [label for label in pixels if not 0 <= label < number]
        for label in strange:
            del pixels[label]
        strange += split.strange[i]
        if strange:
            problem = ONE_MORE_LABEL if one_more else NO_SUCH_LABEL
            if no_zero and strange == [0]:
                problem = NO_ZERO
            split.problems.add(problem, f"{label_map}: {few(strange, 8)}")
        if not pixels:
            split.problems.add(ALL_IGNORED, label_map)


def _check_used(splits: Sequence[LabelSplit]) -> None:
    """Find classes that have no pixels, in all splits or in one."""
    used = [set().union(*split.pixels) for split in splits]
    train = splits[0]
    if not train.pairs:
        return  # what is wrong with each label map is among the problems
    if len(used[0]) < 2:
        more = ""
        if used[0] and train.has_ignored and not train.colors:
            more = (
                f"; {IGNORED} is ignored: if it is a class in your data, name it, too: "
                f"--classes {min(used[0])}:NAME {IGNORED}:OTHER_NAME"
            )
        remedy = ONE_CLASS.remedy + more
        train.problems.add(ONE_CLASS._replace(remedy=remedy), train.name)
    for split, labels in zip(splits, used, strict=True):
        in_one = IN_VAL_ONLY if split is train else IN_TRAIN_ONLY
        others = set().union(*used)
        for label, name in enumerate(split.classes):
            if label not in labels:
                split.problems.add(in_one if label in others else UNUSED, name)
