"""Reads Pascal VOC's XML files, one for each image.

Boxes are pixel indices that count from 1 and include the last pixel, as VOC's
development kit says: a box from 1 to W covers the image. So 1 is taken from the left
and the top only; detectron2 and supervision read them so, and mmdet's XMLDataset,
which takes 1 from all four, makes boxes one pixel smaller. Objects marked
``difficult`` are neither background nor trained on, as for mmdet: they become crowd
regions.
"""

import math
import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from convnext_dense.errors import InputError
from convnext_dense.utils.files import read_text
from convnext_dense.utils.images import unnamed
from convnext_dense.utils.xml_files import read_xml

from ..split_paths import DatasetPaths, SplitPaths
from .content import (
    BAD_FILE,
    BAD_OBJECT,
    NO_FILE,
    NO_IMAGE,
    NOT_ANNOTATED,
    TWO_IMAGES,
    Content,
    Reading,
    bounds,
)
from .tree import (
    AnnotatedFolder,
    Tree,
    annotated_folders,
    by_split,
    common,
    image_of,
    is_image,
    stems_in,
    without_file,
)

NAME = "Pascal VOC"
SUFFIX = ".xml"
# The lists of ImageSets/Main by split, the best first. Those of one class, such as
# dog_train.txt, are not needed.
LISTS = {"train": ("train", "trainval", "default"), "val": ("val", "valid")}
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def find(root: Path, tree: Tree) -> DatasetPaths | None:
    """The splits of a folder, or None if it has no Pascal VOC files.

    Raises:
        InputError: a list cannot be read, or the split of some folders is not known.
    """
    folders = annotated_folders(tree, SUFFIX, is_voc)
    if not folders:
        return None
    splits: dict[str, list[AnnotatedFolder]] = {}
    without_lists = {}
    for folder, annotated in folders.items():
        lists = _lists(folder.parent / "ImageSets/Main", tree)
        for split, listed in lists.items():
            of_split = AnnotatedFolder(annotated.files, annotated.images, listed)
            splits.setdefault(split, []).append(of_split)
        if not lists:
            without_lists[folder] = annotated
    for split, others in by_split(without_lists, root, NAME).items():
        splits.setdefault(split, []).extend(others)
    if "train" not in splits:
        return None
    return {
        split: SplitPaths(
            splits[split][0].files[0].parent,
            common(folder.images for folder in splits[split]),
            partial(read, splits[split], root),
        )
        for split in ("train", "val")
        if split in splits
    }


def is_voc(file: Path) -> bool:
    """Whether a file is a Pascal VOC annotation."""
    try:
        return _is_voc(read_xml(file))
    except InputError:
        return False


def _is_voc(root: ElementTree.Element) -> bool:
    """LabelMe's web tool writes ``annotation``, too, with polygons of ``pt``."""
    return root.tag == "annotation" and root.find("object/polygon/pt") is None


def _lists(folder: Path, tree: Tree) -> dict[str, list[str]]:
    """The names that ImageSets/Main lists for each split; empty without lists."""
    names_in_folder = tree.get(folder, ())
    stems = {n[:-4]: folder / n for n in names_in_folder if n.endswith(".txt")}
    lists = {}
    for split, names in LISTS.items():
        if name := next((name for name in names if name in stems), None):
            lists[split] = _listed(stems[name])
    if not lists:  # VoTT writes those of one class only
        for split in LISTS:
            of_class = [stems[stem] for stem in stems if stem.endswith(f"_{split}")]
            if names := [name for file in of_class for name in _listed(file)]:
                lists[split] = list(dict.fromkeys(names))
        return lists if "train" in lists else {}
    if "train" in lists and "train" not in stems:
        lists.pop("val", None)  # trainval has it
    if "train" not in lists and lists:
        lists = {"train": lists["val"]}
    return lists


def _listed(file: Path) -> list[str]:
    """The names in a list; a number for a class may follow each."""
    names = []
    for line in read_text(file).splitlines():
        name = line.strip()
        if name.startswith('"') and name.count('"') > 1:  # CVAT's, of names with spaces
            name = name.split('"')[1]
        elif len(fields := name.split()) == 2 and fields[1] in ("1", "0", "-1"):
            name = fields[0]
        if name:
            names.append(os.path.splitext(name)[0] if is_image(name) else name)
    return names


def read(folders: list[AnnotatedFolder], root: Path) -> Reading:
    """Read the files of a split.

    Args:
        root: the data set's folder, to which names in messages are relative.
    """
    content = Content(common(folder.images for folder in folders))
    used: set[Path] = set()
    number = difficult = 0
    for folder in folders:
        stems = stems_in(folder.images)
        files = folder.files
        if folder.listed is not None:
            by_name = {file.stem: file for file in files}
            for name in folder.listed:
                if name not in by_name:
                    content.problem(NO_FILE, name)
            files = [by_name[name] for name in folder.listed if name in by_name]
        for file in files:
            number += 1
            shown = file.relative_to(root).as_posix()
            try:
                with unnamed(file):
                    annotation = read_xml(file)
                if not _is_voc(annotation):
                    raise InputError("it is not a Pascal VOC file")
            except InputError as error:
                content.problem(BAD_FILE, f"{shown}: {error}")
                continue
            named = (annotation.findtext("filename") or "").strip()
            image, two = image_of(file, named, folder.images, stems)
            if image is None and (two or not named):
                content.problem(TWO_IMAGES if two else NO_IMAGE, shown)
                continue
            image = image or folder.images / named  # the check of images looks further
            used.add(image)
            image_id = content.add_image(image, _size(annotation))
            difficult += _add_objects(content, image_id, annotation, shown)
    for image in without_file(folders, used):
        content.problem(NOT_ANNOTATED, image.relative_to(root).as_posix())
    source = f"Pascal VOC, {number} XML files in " + ", ".join(
        str(folder.files[0].parent.relative_to(root)) for folder in folders[:3]
    )
    if difficult:
        source += f"; {difficult} difficult objects are crowd regions"
    return content.reading(source)


def _size(annotation: ElementTree.Element) -> tuple[int, int] | None:
    """Width and height; None if the file does not say them, as zeros do not."""
    sides = [_number(annotation.findtext(f"size/{key}")) for key in ("width", "height")]
    width, height = (int(side or 0) for side in sides)
    return (width, height) if width and height else None


def _add_objects(
    content: Content, image_id: int, annotation: ElementTree.Element, shown: str
) -> int:
    """Add the objects of a file; return how many are difficult."""
    difficult = 0
    for number, entry in enumerate(annotation.iterfind("object"), 1):
        name = (entry.findtext("name") or "").strip()
        where = f"{shown} object {number} ({name})"
        if not name:
            content.problem(BAD_OBJECT, f"{where}: no name")
            continue
        polygons = [list(_polygon(polygon)) for polygon in entry.iterfind("polygon")]
        box = [_number(entry.findtext(f"bndbox/{key}")) for key in CORNERS]
        numbers = [side for side in box if side is not None]
        if any(side is None for polygon in polygons for side in polygon):
            content.problem(BAD_OBJECT, f"{where}: a polygon has no numbers")
            continue
        masks = [[side - 1 for side in p if side is not None] for p in polygons]
        masks = [mask for mask in masks if mask]
        if len(numbers) == 4:
            # A reversed pair of corners is the same box.
            left, right = sorted(numbers[::2])
            top, bottom = sorted(numbers[1::2])
            corners: Iterable[float] = (left - 1, top - 1, right, bottom)
        elif entry.find("bndbox") is None and masks:
            corners = bounds(masks)
        else:
            content.problem(BAD_OBJECT, f"{where}: no bndbox of four numbers")
            continue
        crowd = (entry.findtext("difficult") or "").strip() in ("1", "true", "True")
        difficult += crowd
        content.add_object(image_id, name, [*corners], where, masks or None, crowd)
    return difficult


def _polygon(polygon: ElementTree.Element) -> Iterator[float | None]:
    """x1, y1, x2, y2, ...: Roboflow's elements, in their order."""
    for element in polygon:
        yield _number(element.text)


def _number(text: str | None) -> float | None:
    """A finite number, or None."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
