"""COCO files as annotation tools, spreadsheets and scripts write them.

Each case changes a file without problems, and must be read as that file, or stop.
"""

import copy
import json
import unicodedata

import pytest

from convnext_dense.datasets.custom.coco_boxes import CORNERS, EMPTY
from convnext_dense.datasets.custom.coco_check import (
    LISTED_TWICE,
    MISSING,
    NOTHING,
    OTHER_NAME,
    SAME_CLASS,
    SAME_FILE,
    examine,
)
from convnext_dense.datasets.custom.coco_entries import (
    NO_FLAG,
    NO_KEY,
    NO_OBJECT_KEY,
    NO_SIZE,
    OTHER_TYPES,
    POINTS,
)
from convnext_dense.datasets.custom.coco_objects import (
    FLAT_MASK,
    IGNORED,
    NO_BOX,
    NO_MASK,
    NO_SUCH_CLASS,
    NO_SUCH_IMAGE,
    SAME_OBJECT,
)

from ..helpers.custom_data import HEIGHT, WIDTH, box, coco, photograph


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A folder of images, and the content of a COCO file without problems."""
    root = tmp_path_factory.mktemp("tools") / "images"
    content = coco(root)
    content["annotations"] = [a for a in content["annotations"] if not a["iscrowd"]]
    return root, content


def entries(content, key):
    return content["categories" if key == "categories" else key]


def each(of, **changes):
    """Change keys of every entry; a change takes the old value."""

    def change(content):
        content[of] = [
            {**entry, **{key: new(entry[key]) for key, new in changes.items()}}
            for entry in content[of]
        ]

    return change


def both(first, second):
    return lambda content: (first(content), second(content))


def cells(content):
    """As a table of pandas, read back from CSV."""
    for annotation in content["annotations"]:
        for key in ("bbox", "segmentation"):
            annotation[key] = json.dumps(annotation[key])


def a_category_per_object(content):
    names = {c["id"]: c["name"] for c in content["categories"]}
    content["categories"] = [
        dict(id=number, name=names[annotation["category_id"]])
        for number, annotation in enumerate(content["annotations"])
    ]
    for number, annotation in enumerate(content["annotations"]):
        annotation["category_id"] = number


def pairs(polygons):
    """The points of polygons, as lists of x and y."""
    if isinstance(polygons, dict):
        return polygons
    return [[p[i], p[i + 1]] for p in polygons for i in range(0, len(p), 2)]


def as_dicts(polygons):
    if isinstance(polygons, dict):
        return polygons
    return [[dict(x=x, y=y) for x, y in pairs([p])] for p in polygons]


# Files that mean what the plain one means, and the note that says how they differ.
ALIKE = {
    "image ids of objects as text": (each("annotations", image_id=str), OTHER_TYPES),
    "class ids of objects as text": (each("annotations", category_id=str), OTHER_TYPES),
    "class ids of classes as text": (each("categories", id=str), OTHER_TYPES),
    "ids as floats": (
        both(each("images", id=float), each("annotations", image_id=float)),
        OTHER_TYPES,
    ),
    "ids as floats in text": (
        each("annotations", image_id=lambda i: f" {i}.0 "),
        OTHER_TYPES,
    ),
    "sizes as text": (each("images", width=str, height=str), OTHER_TYPES),
    "sizes as floats": (each("images", width=float, height=float), OTHER_TYPES),
    "iscrowd as '0'": (each("annotations", iscrowd=str), OTHER_TYPES),
    "iscrowd as 'false'": (
        each("annotations", iscrowd=lambda _: "false"),
        OTHER_TYPES,
    ),
    "iscrowd as 0.0": (each("annotations", iscrowd=float), OTHER_TYPES),
    "iscrowd as a boolean": (each("annotations", iscrowd=bool), None),
    "boxes as text": (
        each("annotations", bbox=lambda b: [str(v) for v in b]),
        None,
    ),
    "boxes and masks as JSON text": (cells, None),
    "a category for each object": (a_category_per_object, SAME_CLASS),
    "polygons as points": (each("annotations", segmentation=pairs), POINTS),
    "polygons as points with x and y": (
        each("annotations", segmentation=as_dicts),
        POINTS,
    ),
    "paths of Windows": (
        each("images", file_name=lambda f: "C:\\Users\\me\\" + f.replace("/", "\\")),
        OTHER_NAME,
    ),
    "paths of another machine": (
        each("images", file_name=lambda f: f"/home/me/{f}"),
        OTHER_NAME,
    ),
    "backslashes": (each("images", file_name=lambda f: f"images\\{f}"), OTHER_NAME),
    "a folder of images with another name": (
        each("images", file_name=lambda f: f"imgs/{f}"),
        OTHER_NAME,
    ),
    "capitals": (each("images", file_name=str.upper), OTHER_NAME),
    "decomposed characters": (
        each("images", file_name=lambda f: unicodedata.normalize("NFD", f)),
        OTHER_NAME,
    ),
    "quoted names": (
        each(
            "images", file_name=lambda f: f.replace(" ", "%20").replace("ü", "%C3%BC")
        ),
        OTHER_NAME,
    ),
    "Label Studio's local files": (
        each("images", file_name=lambda f: f"/data/local-files/?d=my%20project%2F{f}"),
        OTHER_NAME,
    ),
    "Label Studio's uploaded files": (
        each(
            "images",
            file_name=lambda f: f"/data/upload/3/1a2b3c4d-{f[f.find('/') + 1 :]}",
        ),
        OTHER_NAME,
    ),
    "signed URLs": (
        each("images", file_name=lambda f: f"https://store.example/b/{f}?sig=a%2Fb"),
        OTHER_NAME,
    ),
    "addresses of a store": (
        each("images", file_name=lambda f: f"s3://bucket/{f}"),
        OTHER_NAME,
    ),
    "coco_url alone": (
        lambda c: c.update(
            images=[
                {
                    "coco_url": f"http://images.example/train/{image['file_name']}",
                    **{k: v for k, v in image.items() if k != "file_name"},
                }
                for image in c["images"]
            ]
        ),
        OTHER_NAME,
    ),
}


def named(split):
    """For each image, the number of objects of each class."""
    return [{split.classes[k]: n for k, n in of.items()} for of in split.objects]


@pytest.mark.parametrize("case", ALIKE)
def test_files_that_mean_the_same(plain, case):
    root, content = plain
    expected = examine(content, root, "train")
    assert not expected.problems
    change, note = ALIKE[case]
    content = copy.deepcopy(content)
    change(content)
    split = examine(content, root, "train")
    assert [problem for problem, _ in split.problems] == ([note] if note else [])
    assert split.files == expected.files
    assert named(split) == named(expected)
    for listed, other in zip(split.annotations, expected.annotations, strict=True):
        for annotation, alike in zip(listed, other, strict=True):
            keys = annotation.keys() - {"category_id"}
            assert {k: annotation[k] for k in keys} == {k: alike[k] for k in keys}


def keys(**changes):
    """Replace keys of the objects: new=old."""

    def change(content):
        for annotation in content["annotations"]:
            for new, old in changes.items():
                annotation[new] = annotation.pop(old)

    return change


def first(of, **changes):
    return lambda content: content[of][0].update(changes)


# What stops training: the error, and what its line says.
STOPS = {
    "item_id for image_id": (
        keys(item_id="image_id"),
        NO_OBJECT_KEY,
        "object 1: no image_id (it has id, category_id, bbox, segmentation, area, ",
    ),
    "imageId for image_id": (
        keys(imageId="image_id", categoryId="category_id"),
        NO_OBJECT_KEY,
        "object 1: no image_id, no category_id (it has id, bbox, segmentation, area, ",
    ),
    "an image without id": (
        lambda c: c["images"][0].pop("id"),
        NO_KEY,
        "image number 0: no id (it has file_name, width, height)",
    ),
    "a class called title": (
        lambda c: c.update(categories=[dict(id=7, title="a"), c["categories"][1]]),
        NO_KEY,
        "category number 0: no name (it has id, title)",
    ),
    "an image id that is no number": (
        first("annotations", image_id="one"),
        NO_SUCH_IMAGE,
        'object 1: image "one" (text) beside 100',
    ),
    "a class's name for its id": (
        first("annotations", category_id="Käfer"),
        NO_SUCH_CLASS,
        'object 1: class "Käfer" (text) beside 7',
    ),
    "a width in words": (
        first("images", width="64 px"),
        NO_SIZE,
        'sub folder/0.jpg: width "64 px" (text), height 48',
    ),
    "a negative height": (first("images", height=-48), NO_SIZE, "height -48"),
    "iscrowd in words": (
        first("annotations", iscrowd="no"),
        NO_FLAG,
        'object 1: iscrowd "no" (text)',
    ),
    "iscrowd of 2": (first("annotations", iscrowd=2), NO_FLAG, "iscrowd 2"),
    "ignore in words": (first("annotations", ignore="x"), NO_FLAG, 'ignore "x" (text)'),
    "a mask of no polygon": (
        first("annotations", segmentation=[[]]),
        NO_MASK,
        "an object in sub folder/0.jpg",
    ),
    "a box as a dict": (
        first("annotations", bbox=dict(x=1, y=2, width=3, height=4)),
        NO_BOX,
        "object 1 in sub folder/0.jpg",
    ),
    "fractions of the image": (
        first("annotations", bbox=[0.1, 0.2, 0.3, 0.4], segmentation=None),
        EMPTY,
        "object 1 in sub folder/0.jpg",
    ),
    "crowd regions alone": (
        each("annotations", iscrowd=lambda _: 1),
        NOTHING,
        "train",
    ),
    "ignored objects alone": (
        lambda c: [a.update(ignore=1) for a in c["annotations"]],
        NOTHING,
        "train",
    ),
    "another folder's images": (
        each("images", file_name=lambda f: f"cam1/{f.rpartition('/')[2]}"),
        MISSING,
        "cam1/0.jpg (sub folder/0.jpg is not in a folder cam1)",
    ),
    "a misspelt name": (
        first("images", file_name="sub folder/O.jpg"),
        MISSING,
        "sub folder/O.jpg (the nearest is sub folder/0.jpg)",
    ),
    "two cameras, one folder": (
        lambda c: c["images"].append(dict(id=1, file_name="D:\\cam1\\Bild 1 ü.jpg")),
        SAME_FILE,
        "Bild 1 ü.jpg, D:\\cam1\\Bild 1 ü.jpg -> Bild 1 ü.jpg",
    ),
}


@pytest.mark.parametrize("case", STOPS)
def test_files_that_stop(plain, case):
    root, content = plain
    change, problem, says = STOPS[case]
    content = copy.deepcopy(content)
    change(content)
    split = examine(content, root, "train")
    names = dict(split.problems)[problem]
    assert says in names[0]
    assert split.problems.stop


@pytest.mark.parametrize("with_masks", [True, False])
def test_boxes_that_are_corners(plain, with_masks):
    root, content = plain
    content = copy.deepcopy(content)
    for annotation in content["annotations"]:
        x, y, w, h = annotation["bbox"]
        if not with_masks:  # then only boxes that reach over the edge tell
            x, y = x + 16, y + 10
            del annotation["segmentation"]
        annotation["bbox"] = [x, y, min(x + w, 64), min(y + h, 48)]
    split = examine(content, root, "train")
    assert len(dict(split.problems)[CORNERS]) == 6
    assert split.problems.stop
    # If they are none, the copy that --fix writes has them clipped.
    content = dict(
        images=split.images,
        annotations=[a for of_image in split.annotations for a in of_image],
        categories=split.categories,
    )
    assert not examine(content, root, "train").problems.stop


def test_real_boxes_over_the_edge_are_no_corners(plain):
    root, content = plain
    content = copy.deepcopy(content)
    content["annotations"][0]["bbox"] = [30, 20, 40, 40]
    content["annotations"][0].pop("segmentation")
    split = examine(content, root, "train", boxes_only=True)
    assert CORNERS not in dict(split.problems)


def test_a_photograph_listed_twice_has_the_objects_of_both(plain):
    root, content = plain
    content = copy.deepcopy(content)
    twice = dict(content["images"][0], id=7)
    content["images"].append(twice)
    content["annotations"] += [
        dict(content["annotations"][0], id=50, image_id=7),
        box(51, 7, at=(40, 30, 20, 10)),
    ]
    split = examine(content, root, "train")
    assert [p for p, _ in split.problems] == [LISTED_TWICE, SAME_OBJECT]
    assert len(split.files) == 6
    boxes = [a["bbox"] for a in split.annotations[0]]
    assert boxes == [[10, 12, 30, 20], [2, 3, 20, 15], [40, 30, 20, 10]]
    assert {a["image_id"] for a in split.annotations[0]} == {100}


def test_ignored_objects_stay_ignored(plain, tmp_path):
    root, content = plain
    content = copy.deepcopy(content)
    content["annotations"][0]["ignore"] = "1"
    split = examine(content, root, "train")
    assert dict(split.problems)[IGNORED] == ["object 1 in sub folder/0.jpg"]
    assert not split.problems.stop
    assert split.counts["objects"] == 5
    assert split.counts["ignored objects"] == 1
    split.write(tmp_path / "train.json")
    written = json.loads((tmp_path / "train.json").read_text())
    assert [a.get("ignore") for a in written["annotations"]] == [1] + [None] * 5


def test_dropped_objects_stop_training_unless_they_are_allowed(plain):
    """Their image stays, so that training would take them for background."""
    root, content = plain
    content = copy.deepcopy(content)
    content["annotations"][0].update(segmentation=[[1, 1, 9, 1]])
    content["annotations"][1].update(bbox=[3, 3, 0, 5], segmentation=None)
    split = examine(content, root, "train")
    assert [p for p, _ in split.problems] == [FLAT_MASK, EMPTY]
    assert split.problems.stop
    assert "--fix or --allow-dropped leaves them out" in split.problems.lines()[0]
    allowed = examine(content, root, "train", allow_dropped=True)
    assert [(p.level, p.what) for p, _ in allowed.problems] == [
        ("warning", FLAT_MASK.what),
        ("warning", EMPTY.what),
    ]
    assert allowed.annotations == split.annotations


def test_nothing_advises_to_empty_a_data_set(plain):
    root, content = plain
    content = copy.deepcopy(content)
    for annotation in content["annotations"]:
        annotation["image_id"] = "none"
    lines = examine(content, root, "train").problems.lines()
    assert any("image_id is not in the file: 6" in line for line in lines)
    assert not any("--fix" in line for line in lines)


def test_folders_in_names_choose_the_file(tmp_path):
    """Two cameras have files of the same names."""
    for seed, camera in enumerate(("cam0", "cam1")):
        photograph(tmp_path / camera / "im.jpg", seed)
    size = dict(width=WIDTH, height=HEIGHT)
    content = dict(
        images=[dict(id=1, file_name="D:\\photos\\cam1\\im.jpg", **size)],
        annotations=[box(1, 1)],
        categories=[dict(id=7, name="ant")],
    )
    assert examine(content, tmp_path, "train").files == ["cam1/im.jpg"]
    assert examine(content, tmp_path / "cam1", "train").files == ["im.jpg"]
    content["images"][0]["file_name"] = "im.jpg"
    (name,) = dict(examine(content, tmp_path, "train").problems)[MISSING]
    assert name == "im.jpg (cam0/im.jpg, cam1/im.jpg fit)"
    content["images"][0]["file_name"] = "cam1/im.jpg"
    split = examine(content, tmp_path / "cam0", "train")
    assert split.problems.stop
    assert not split.files
