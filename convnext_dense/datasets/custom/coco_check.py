"""Look through a COCO file: what is wrong in it, and the rest of it, cleaned.

What mmdet would stumble over, train on wrongly or leave out in silence.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from pycocotools import mask as mask_api

from convnext_dense.errors import InputError
from convnext_dense.utils.images import SMALLEST, Look, list_images, look
from convnext_dense.utils.masks import finite, read_mask

from .coco import CocoPart
from .exif import turn_annotation
from .problems import Findings, Kind

_OUT = "--fix leaves them out"


def _error(what: str, remedy: str = _OUT) -> Kind:
    return Kind(True, what, remedy)


def _warning(what: str, remedy: str) -> Kind:
    return Kind(False, what, remedy)


NAMELESS = _error("entries without an id or a name")
SAME_CLASS = _error("classes of the same name or id", "--fix takes them for one")
SAME_ID = _error("images of different files under one id")
MISSING = _error("images that are not in the folder")
UNREADABLE = _error("images that cannot be read or resized")
OTHER_SIZE = _error("images of another size than the file says")
AS_STORED = _error(
    "images annotated as stored, which their EXIF orientation turns",
    "--fix turns the annotations",
)
NO_SUCH_IMAGE = _error("objects of images that the file does not have")
NO_SUCH_CLASS = _error("objects of classes that the file does not have")
NOT_TRAINED = _error("objects of classes that the training split does not have")
NO_BOX = _error("objects without a box of four finite numbers")
NEGATIVE = _error(
    "boxes of negative width or height",
    f"COCO's are x, y, width, height, not corners; {_OUT}",
)
OUTSIDE = _error("boxes outside their image", f"are they in its pixels? {_OUT}")
NO_MASK = _error(
    "objects without a mask, where others have one",
    f"--boxes-only trains without masks; {_OUT}",
)
BAD_MASK = _error("masks that are damaged or of another size than their image")
NOTHING = _error("splits without a single object", "annotate some")

LISTED_TWICE = _warning(
    "images listed twice", "the second is left out, with objects under its own id"
)
NOT_LISTED = _warning("images in the folder that the file does not have", "not used")
SAME_OBJECT_ID = _warning("objects under an id taken before", "renumbered")
MASK_BOX = _warning("boxes made from masks", "the file had none")
EMPTY = _warning(
    "boxes below one pixel", "left out; COCO's are in pixels, not from 0 to 1"
)
CLIPPED = _warning("boxes that reach over the image's edge", "clipped")
FLAT_MASK = _warning("masks without an area", "these objects are left out")
SMALL = 100  # pixels; the masks of smaller objects are a few steps
STRAY_MASK = _warning("masks far from their box", "look at them")
TINY = _warning(
    "images with a side below 32 pixels", "they are enlarged, if the config resizes"
)
UNUSED = _warning("classes without objects", "nothing to learn for them")


def examine(
    content: Mapping,
    folder: Path,
    name: str,
    trained: list[dict] | None = None,
    boxes_only: bool = False,
) -> CocoPart:
    """Look through the annotations and every image file.

    Args:
        content: what the file holds: lists of images, annotations, categories.
        folder: where the images are.
        name: 'train' or 'val'.
        trained: the training split's categories, whose ids and order count; None
            if this is the training split.
        boxes_only: take no notice of masks.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"the {name} images: there is no folder {folder}")
    findings = Findings()
    category_of, categories = _categories(content["categories"], trained, findings)
    images, looks = _images(content["images"], folder, name, findings)
    objects = _objects(content, category_of, findings)
    annotations = [
        list(_clean(objects[key], image, looks[key], boxes_only, findings))
        for key, image in images.items()
    ]
    has_masks = any("segmentation" in one for there in annotations for one in there)
    if has_masks:
        annotations = [
            [one for one in there if _has_mask(one, image, findings)]
            for there, image in zip(annotations, images.values(), strict=True)
        ]
    used = Counter(a["category_id"] for there in annotations for a in there)
    for category in categories:
        if not used[category["id"]]:
            findings.add(UNUSED, category["name"])
    if not used:
        findings.add(NOTHING, name)
    images = [
        dict(id=image["id"], file_name=image["file_name"], width=width, height=height)
        for image, (width, height) in zip(
            images.values(), (one.shown for one in looks.values()), strict=True
        )
    ]
    digests = [one.digest for one in looks.values()]
    return CocoPart(
        *(name, folder, categories, images, annotations, has_masks, digests, findings)
    )


def _categories(listed: list, trained: list[dict] | None, findings: Findings):
    """The category that each id of the file stands for, and the list of them."""
    category_of, names = {}, {}
    for entry in listed:
        name = str(entry.get("name") or "").strip() if isinstance(entry, dict) else ""
        if not name or not _is_id(entry.get("id")):
            findings.add(NAMELESS, f"category {entry}")
        elif name in names or entry["id"] in category_of:
            findings.add(SAME_CLASS, f"{entry['id']}: {name}")
            category_of.setdefault(entry["id"], names.get(name))
        else:
            names[name] = category_of[entry["id"]] = dict(id=entry["id"], name=name)
    _number(names.values())
    if trained is None:
        return category_of, sorted(names.values(), key=lambda category: category["id"])
    known = {category["name"]: category for category in trained}
    return {i: known.get(c["name"]) for i, c in category_of.items()}, trained


def _number(entries) -> None:
    """COCO's results have whole numbers as ids; where some are not, count."""
    if not all(isinstance(entry["id"], int) for entry in entries):
        for number, entry in enumerate(entries, 1):
            entry["id"] = number


def _is_id(value) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _images(listed: list, folder: Path, name: str, findings: Findings):
    """The images that can be used and their looks, both by the file's ids."""
    entries, paths, listed_files, doubtful = {}, {}, set(), set()
    for entry in listed:
        file = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(file, str) or not file or not _is_id(entry.get("id")):
            findings.add(NAMELESS, f"image {entry}")
            continue
        key, path = entry["id"], _locate(folder, file)
        if path is None:
            findings.add(MISSING, file)
            continue
        if path in listed_files:
            findings.add(LISTED_TWICE, file)
            continue
        listed_files.add(path)
        if key in entries:
            findings.add(SAME_ID, f"{key}: {file}")
            doubtful.add(key)
        else:
            entries[key], paths[key] = entry, path
    looks = look(paths.values(), f"reading {name} images")
    good, good_looks = {}, {}
    for key, entry in entries.items():
        one, file = looks[paths[key]], paths[key].relative_to(folder).as_posix()
        if key in doubtful:
            continue
        said = (entry.get("width"), entry.get("height"))
        if one.trouble:
            findings.add(UNREADABLE, f"{file}: {one.trouble}")
        elif all(said) and said not in (one.shown, one.stored):
            findings.add(OTHER_SIZE, f"{file}: {_size(said)}, is {_size(one.shown)}")
        else:
            annotated = one.shown
            if all(said) and said != one.shown:
                findings.add(AS_STORED, file)
                annotated = one.stored
            good[key] = dict(id=key, file_name=file, annotated=annotated)
            good_looks[key] = one
            if min(one.shown) < SMALLEST:
                findings.add(TINY, f"{file}: {_size(one.shown)}")
    _number(good.values())
    for file in list_images(folder):
        if folder / file not in listed_files:
            findings.add(NOT_LISTED, file)
    return good, good_looks


def _size(size: tuple) -> str:
    return f"{size[0]} x {size[1]}"


def _locate(folder: Path, file: str) -> Path | None:
    """The image of that name; labelling tools write other folders before it."""
    file = file.replace("\\", "/")
    for name in (file, Path(file).name):
        path = Path(os.path.normpath(folder / name))
        if os.path.isfile(path) and folder in path.parents:
            return path
    return None


def _objects(content: Mapping, category_of: dict, findings: Findings) -> dict:
    """(name, annotation, category's id) triples by the file's id of their image."""
    # Of images that cannot be used, that has been said.
    declared = [e.get("id") for e in content["images"] if isinstance(e, dict)]
    declared = set(filter(_is_id, declared))
    objects, seen = defaultdict(list), set()
    for number, entry in enumerate(content["annotations"]):
        entry = entry if isinstance(entry, dict) else {}
        name = f"object {entry.get('id', f'number {number}')}"
        image, category = entry.get("image_id"), entry.get("category_id")
        if not _is_id(image) or image not in declared:
            findings.add(NO_SUCH_IMAGE, f"{name}: image {image}")
        elif not _is_id(category) or category not in category_of:
            findings.add(NO_SUCH_CLASS, f"{name}: class {category}")
        elif category_of[category] is None:
            findings.add(NOT_TRAINED, f"{name}: class {category}")
        else:
            if _is_id(entry.get("id")):
                if entry["id"] in seen:
                    findings.add(SAME_OBJECT_ID, name)
                seen.add(entry["id"])
            objects[image].append((name, entry, category_of[category]["id"]))
    return objects


def _clean(objects, image: dict, look: Look, boxes_only: bool, findings: Findings):
    """The annotations of an image that can be trained on, as the image is shown."""
    width, height = image["annotated"]
    for name, entry, category in objects:
        name = f"{name} in {image['file_name']}"
        mask = None if boxes_only else entry.get("segmentation") or None
        rle = bounds = None
        if mask is not None:
            mask, rle = read_mask(mask, width, height)
            if rle is None:
                findings.add(BAD_MASK, name)
                continue
            if not mask_api.area(rle):
                findings.add(FLAT_MASK, name)
                continue
            bounds = mask_api.toBbox(rle).tolist()
        box = entry.get("bbox")
        if not box and bounds:
            findings.add(MASK_BOX, name)
            box = bounds
        box = finite(box)
        if box is None or len(box) != 4:
            findings.add(NO_BOX, name)
            continue
        kind, box = _box(box, width, height)
        if kind:
            findings.add(kind, name)
        if box is None:
            continue
        large = bounds and box[2] * box[3] > SMALL
        if large and mask_api.iou([box], [bounds], [0])[0, 0] < 0.3:
            findings.add(STRAY_MASK, name)
        area = finite([entry.get("area")])
        if not area or area[0] <= 0:
            area = [float(mask_api.area(rle)) if rle else box[2] * box[3]]
        clean = dict(
            image_id=image["id"],
            category_id=category,
            bbox=box,
            area=area[0],
            iscrowd=int(bool(entry.get("iscrowd"))),
        )
        if mask is not None:
            clean["segmentation"] = mask
        if image["annotated"] != look.shown:
            clean = turn_annotation(clean, look.orientation, width, height)
        yield clean


def _box(box: list[float], width: int, height: int):
    """(what is wrong, the box within the image or None)."""
    x, y, w, h = box
    if w < 0 or h < 0:
        return NEGATIVE, None
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + w, float(width)), min(y + h, float(height))
    if right <= left or bottom <= top:
        return (OUTSIDE if w and h else EMPTY), None
    if right - left < 1 or bottom - top < 1:
        return EMPTY, None
    over = max(left - x, top - y, x + w - right, y + h - bottom)
    return (CLIPPED if over > 1 else None), [left, top, right - left, bottom - top]


def _has_mask(annotation: dict, image: dict, findings: Findings) -> bool:
    if "segmentation" not in annotation:
        findings.add(NO_MASK, f"an object in {image['file_name']}")
    return "segmentation" in annotation
