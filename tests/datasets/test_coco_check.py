"""Problems of COCO files are found, and the rest can be trained on."""

import copy
import itertools
import math
import time

import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as mask_api

from convnext_dense import errors
from convnext_dense.datasets.custom.coco import DRAWN_OBJECTS
from convnext_dense.datasets.custom.coco_boxes import (
    CLIPPED,
    EMPTY,
    NEGATIVE,
    OUTSIDE,
)
from convnext_dense.datasets.custom.coco_check import (
    AS_STORED,
    LISTED_TWICE,
    MISSING,
    MOST_CLASSES,
    NOT_LISTED,
    NOTHING,
    OTHER_NAME,
    OTHER_SIZE,
    SAME_CLASS,
    SAME_CLASS_ID,
    SAME_FILE,
    SAME_ID,
    UNUSED,
    examine,
)
from convnext_dense.datasets.custom.coco_entries import (
    BAD_NAME,
    NO_KEY,
    NO_OBJECT_KEY,
    NO_SIZE,
)
from convnext_dense.datasets.custom.coco_objects import (
    BAD_MASK,
    FLAT_MASK,
    LARGE_AREA,
    MASK_BOX,
    NO_BOX,
    NO_MASK,
    NO_SUCH_CLASS,
    NO_SUCH_IMAGE,
    NOT_TRAINED,
    SAME_OBJECT_ID,
    STRAY_MASK,
)
from convnext_dense.datasets.custom.problems import UNREADABLE
from convnext_dense.utils.masks import read_mask

from ..helpers.custom_data import CATEGORIES, HEIGHT, WIDTH, box, coco, photograph, rle


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """A folder of images, and the content of a COCO file without problems."""
    root = tmp_path_factory.mktemp("coco") / "images"
    photograph(root.parent / "outside.jpg")
    return root, coco(root)


def problems(split):
    """The names that have each problem."""
    return dict(split.problems)


def test_a_healthy_file_has_nothing_wrong(healthy):
    root, content = healthy
    split = examine(content, root, "train")
    assert problems(split) == {}
    assert split.classes == ("ant <b>", "Käfer")  # by rising id
    assert len(split.files) == 6
    assert split.counts == {
        "objects": 6,
        "crowd regions": 1,
        "images without objects": 1,
    }
    assert [dict(counter) for counter in split.objects[:2]] == [{1: 1, 0: 1}, {0: 1}]
    assert split.pixels[0] == {1: 600, 0: 300}
    assert split.has_masks


def test_boxes_only_takes_no_notice_of_masks(healthy):
    root, content = healthy
    content = copy.deepcopy(content)
    content["annotations"][0]["segmentation"] = "nonsense"
    split = examine(content, root, "train", boxes_only=True)
    assert problems(split) == {}
    assert not split.has_masks


def images(content, i, **change):
    content["images"][i].update(change)


def objects(content, i, **change):
    content["annotations"][i].update(change)


def category(content, **change):
    """Change the first category; its objects stay those of the class."""
    first, *others = content["categories"]
    content["categories"] = [dict(first, **change), *others]


def nested(depth):
    """A list as deep as Python reads JSON, and deeper than it writes a list."""
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


DEEP = nested(5000)
NAN = math.nan
# What is changed in a file without problems; its problem; the number of objects left.
DAMAGE = {
    "an image that is not there": (
        lambda c: images(c, 0, file_name="gone.jpg"),
        MISSING,
        5,
    ),
    "a file outside the folder": (
        lambda c: images(c, 5, file_name="../outside.jpg"),
        MISSING,
        7,
    ),
    "an image without a name": (lambda c: c["images"][0].pop("file_name"), NO_KEY, 5),
    "an image that is a list": (lambda c: c["images"].append([]), NO_KEY, 7),
    "two images of one id": (lambda c: images(c, 1, id=100), SAME_ID, 4),
    "an image of a list for an id": (
        lambda c: c["images"].append(dict(id=[1], file_name="a.jpg")),
        NO_KEY,
        7,
    ),
    "a name too long for a disk": (
        lambda c: images(c, 5, file_name="a" * 5000),
        MISSING,
        7,
    ),
    "an image under two ids": (
        lambda c: c["images"].append(dict(c["images"][0], id=7)),
        LISTED_TWICE,
        7,
    ),
    "an image of two sizes": (
        lambda c: c["images"].append(dict(c["images"][0], id=7, width=60)),
        OTHER_SIZE,
        5,
    ),
    "two names of one image": (
        lambda c: c["images"].append(
            dict(c["images"][0], id=7, file_name="C:\\a\\0.jpg")
        ),
        SAME_FILE,
        5,
    ),
    "an image twice": (
        lambda c: c["images"].append(dict(c["images"][0])),
        LISTED_TWICE,
        7,
    ),
    "another size": (lambda c: images(c, 0, width=63), OTHER_SIZE, 5),
    "width and height exchanged": (
        lambda c: images(c, 0, width=HEIGHT, height=WIDTH),
        OTHER_SIZE,
        5,
    ),
    "an unlisted image": (lambda c: c["images"].pop(5), NOT_LISTED, 7),
    "an unknown image": (lambda c: objects(c, 0, image_id=5), NO_SUCH_IMAGE, 6),
    "an image id that is a list": (
        lambda c: objects(c, 0, image_id=[100]),
        NO_OBJECT_KEY,
        6,
    ),
    "an object that is a number": (
        lambda c: c["annotations"].append(3),
        NO_OBJECT_KEY,
        7,
    ),
    "an unknown class": (lambda c: objects(c, 0, category_id=5), NO_SUCH_CLASS, 6),
    "a class without a name": (
        lambda c: c["categories"].append(dict(id=9, name=" ")),
        NO_KEY,
        7,
    ),
    "two classes of one name": (
        lambda c: c["categories"].append(dict(id=9, name="Käfer")),
        SAME_CLASS,
        7,
    ),
    "two classes of one id": (
        lambda c: c["categories"].append(dict(id=3, name="wasp")),
        SAME_CLASS_ID,
        7,
    ),
    "a class nobody has": (
        lambda c: c["categories"].append(dict(id=9, name="wasp")),
        UNUSED,
        7,
    ),
    "two objects of one id": (lambda c: objects(c, 1, id=1), SAME_OBJECT_ID, 7),
    "no box": (lambda c: objects(c, 0, bbox=None, segmentation=None), NO_BOX, 6),
    "a box from the mask": (lambda c: c["annotations"][0].pop("bbox"), MASK_BOX, 7),
    "three numbers": (lambda c: objects(c, 0, bbox=[1, 2, 3]), NO_BOX, 6),
    "a box in words": (lambda c: objects(c, 0, bbox="wide"), NO_BOX, 6),
    "NaN": (lambda c: objects(c, 0, bbox=[NAN, 2, 3, 4]), NO_BOX, 6),
    "infinite": (lambda c: objects(c, 0, bbox=[1, 2, 3, math.inf]), NO_BOX, 6),
    "negative": (lambda c: objects(c, 0, bbox=[20, 20, -9, 9]), NEGATIVE, 6),
    "outside": (lambda c: objects(c, 0, bbox=[64, 0, 9, 9]), OUTSIDE, 6),
    "empty": (lambda c: objects(c, 0, bbox=[1, 2, 0, 9]), EMPTY, 6),
    "relative": (lambda c: objects(c, 0, bbox=[0.1, 0.2, 0.5, 0.4]), EMPTY, 6),
    "over the edge": (lambda c: objects(c, 0, bbox=[-5, 8, 40, 30]), CLIPPED, 7),
    "no mask": (lambda c: c["annotations"][0].pop("segmentation"), NO_MASK, 6),
    "a mask that is a word": (lambda c: objects(c, 0, segmentation="x"), BAD_MASK, 6),
    "a polygon of NaN": (
        lambda c: objects(c, 0, segmentation=[[1, 2, NAN, 4, 5, 6]]),
        BAD_MASK,
        6,
    ),
    "an odd polygon": (
        lambda c: objects(c, 0, segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
        BAD_MASK,
        6,
    ),
    "a polygon to the moon": (
        lambda c: objects(c, 0, segmentation=[[0, 0, 1e15, 0, 1e15, 1e15]]),
        BAD_MASK,
        6,
    ),
    "runs of half a pixel": (
        lambda c: objects(c, 0, segmentation=dict(size=[48, 64], counts=[0.5, 3071.5])),
        BAD_MASK,
        6,
    ),
    "a mask of another size": (
        lambda c: objects(c, 0, segmentation=rle(width=HEIGHT, height=WIDTH)),
        BAD_MASK,
        6,
    ),
    "runs that do not add up": (
        lambda c: objects(c, 0, segmentation=dict(size=[48, 64], counts=[5, 6])),
        BAD_MASK,
        6,
    ),
    "damaged run lengths": (
        lambda c: objects(c, 0, segmentation=dict(size=[48, 64], counts="PP\x7fP")),
        BAD_MASK,
        6,
    ),
    "a line for a mask": (
        lambda c: objects(c, 0, segmentation=[[1, 2, 30, 4]]),
        FLAT_MASK,
        6,
    ),
    "a mask outside": (
        lambda c: objects(c, 0, segmentation=[[70, 70, 90, 70, 90, 90]]),
        FLAT_MASK,
        6,
    ),
    "a mask elsewhere": (
        lambda c: objects(c, 0, bbox=[40, 30, 20, 15]),
        STRAY_MASK,
        7,
    ),
    "no objects": (lambda c: c["annotations"].clear(), NOTHING, 0),
    "a deep image": (lambda c: c["images"].append(dict(file_name=DEEP)), NO_KEY, 7),
    "a deep class": (lambda c: c["categories"].append(dict(id=DEEP)), NO_KEY, 7),
    "a deep image id": (lambda c: objects(c, 0, image_id=DEEP), NO_OBJECT_KEY, 6),
    "a deep class id": (lambda c: objects(c, 0, category_id=DEEP), NO_OBJECT_KEY, 6),
    "a deep width": (lambda c: images(c, 0, width=DEEP), NO_SIZE, 5),
    "a deep object id": (lambda c: objects(c, 0, id=DEEP, bbox=DEEP), NO_BOX, 6),
    "a deep mask": (lambda c: objects(c, 0, segmentation=DEEP), BAD_MASK, 6),
    "a class that is a list": (
        lambda c: c["categories"].append(dict(id=9, name=["a"])),
        NO_KEY,
        7,
    ),
    "an image of 10^9 pixels a side": (
        lambda c: images(c, 0, width=10**9, height=10**9),
        OTHER_SIZE,
        5,
    ),
    "a device": (lambda c: images(c, 5, file_name="/dev/zero"), MISSING, 7),
    "a null character": (lambda c: images(c, 5, file_name="\0"), MISSING, 7),
    "half a character": (lambda c: images(c, 5, file_name="\udcff.png"), MISSING, 7),
    "a folder": (
        lambda c: images(c, 5, file_name="sub folder"),
        MISSING,
        7,
    ),
    "a name of 10^5 letters": (lambda c: category(c, name="a" * 10**5), BAD_NAME, 7),
    "a name that moves the cursor": (lambda c: category(c, name="\x1b[A"), BAD_NAME, 7),
    "a name of two lines": (lambda c: category(c, name="a\nb"), BAD_NAME, 7),
    "a name of half a character": (lambda c: category(c, name="\ud800"), BAD_NAME, 7),
    "an area of 1e308": (lambda c: objects(c, 0, area=1e308), LARGE_AREA, 7),
    "a box of 1e308": (lambda c: objects(c, 0, bbox=[0, 1e308, 1e308, 9]), OUTSIDE, 6),
    "a huge box": (
        lambda c: objects(c, 0, bbox=[1, 2, 10**400, 4]),
        NO_BOX,
        6,
    ),
    "a box in a word": (lambda c: objects(c, 0, bbox="1234"), NO_BOX, 6),
}
ALSO = {  # the problems that come with another
    NOTHING: {UNUSED},
    MISSING: {NOT_LISTED},
    NO_KEY: {NOT_LISTED},
    NO_SIZE: {NOT_LISTED},
    SAME_FILE: {OTHER_NAME},
    NO_BOX: {NO_MASK},
    SAME_ID: {NO_SUCH_IMAGE},
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage(healthy, case):
    root, content = healthy
    damage, problem, left = DAMAGE[case]
    content = copy.deepcopy(content)
    damage(content)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    split = examine(content, root, "train")
    assert set(problems(split)) - ALSO.get(problem, set()) == {problem}
    assert split.problems.stop == (problem.level == "error")
    assert sum(map(len, split.annotations)) == left
    for annotation in itertools.chain.from_iterable(split.annotations):
        assert np.isfinite(annotation["bbox"]).all()
        assert annotation["area"] > 0
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    # The cleaned file has no problems except those that cleaning cannot solve.
    again = examine(as_content(split), root, "train")
    unsolved = {NOTHING, UNUSED, NOT_LISTED}
    assert set(problems(again)) <= unsolved | {STRAY_MASK}


@pytest.mark.parametrize("area", [NAN, math.inf, 0, -5, "wide", None, 10**400])
def test_areas_that_are_not_said(healthy, area):
    root, content = healthy
    content = copy.deepcopy(content)
    objects(content, 0, area=area)
    split = examine(content, root, "train")
    assert problems(split) == {}
    assert split.annotations[0][0]["area"] == 600


@pytest.mark.parametrize(
    ("crowd", "expected"),
    [
        *((value, 0) for value in (0, "0", "false", None, False, 0.0)),
        *((value, 1) for value in (1, True, "1", "True")),
    ],
)
def test_crowds(healthy, crowd, expected):
    root, content = healthy
    content = copy.deepcopy(content)
    objects(content, 0, iscrowd=crowd)
    assert examine(content, root, "train").annotations[0][0]["iscrowd"] == expected


@pytest.mark.parametrize("large", [2**53, 2**63, -(2**64), 10**90])
def test_ids_that_other_libraries_cannot_hold_are_renumbered(healthy, large):
    root, content = healthy
    content = copy.deepcopy(content)
    for annotation in content["annotations"]:
        annotation["image_id"] += large
        annotation["category_id"] += large
    for image in content["images"]:
        image["id"] += large
    content["categories"] = [dict(c, id=c["id"] + large) for c in CATEGORIES]
    split = examine(content, root, "train")
    assert problems(split) == {}
    assert [c["id"] for c in split.categories] == [1, 2]
    assert [i["id"] for i in split.images] == [1, 2, 3, 4, 5, 6]
    assert sum(map(len, split.annotations)) == 7


def test_too_many_classes(healthy):
    root, content = healthy
    many = [dict(id=i, name=f"class {i}") for i in range(MOST_CLASSES + 1)]
    with pytest.raises(errors.InputError, match="have 20001 classes; at most 20000"):
        examine(dict(content, categories=many), root, "train")


def test_names_of_problems_are_short_and_harmless(healthy):
    root, content = healthy
    content = copy.deepcopy(content)
    images(content, 0, file_name="\x1b[2J" + "a" * 10**6)
    split = examine(content, root, "train")
    (name,) = problems(split)[MISSING]
    assert len(name) < 300
    assert name.isprintable()


def test_many_objects_are_read_in_time_that_grows_with_them(healthy):
    root, content = healthy
    repeated = content["annotations"] * 1000
    start = time.process_time()
    split = examine(dict(content, annotations=repeated), root, "train")
    assert time.process_time() - start < 60  # a bound, not a measurement: it takes 0.6
    assert sum(map(len, split.annotations)) == 7000
    _, sample = split.sample(0)
    assert len(sample.gt_instances) == DRAWN_OBJECTS


def as_content(split):
    annotations = itertools.chain.from_iterable(split.annotations)
    annotations = [dict(annotation, id=i) for i, annotation in enumerate(annotations)]
    images = split.images
    return dict(images=images, annotations=annotations, categories=split.categories)


@pytest.mark.parametrize("size", [(None, None), (0, 0), (NAN, NAN)])
def test_sizes_that_are_not_said(healthy, size):
    root, content = healthy
    content = copy.deepcopy(content)
    for image in content["images"]:
        image["width"], image["height"] = size
    split = examine(content, root, "train")
    assert problems(split) == {}
    assert split.sizes == [(WIDTH, HEIGHT)] * 6


def damaged_file(root, name, content):
    (root / name).write_bytes(content)
    listed = [dict(id=1, file_name=name), dict(id=2, file_name="good.jpg")]
    photograph(root / "good.jpg")
    return dict(images=listed, annotations=[box(1, 2)], categories=CATEGORIES[:1])


def whole_file(tmp_path, name):
    return photograph(tmp_path / name).read_bytes()


@pytest.mark.parametrize("name", ["bad.jpg", "bad.png", "bad.tif", "bad.webp"])
@pytest.mark.parametrize("share", [0, 0.5, 0.9])
def test_images_that_are_cut_short(tmp_path, name, share):
    whole = whole_file(tmp_path, name)
    content = damaged_file(tmp_path, name, whole[: int(share * len(whole))])
    split = examine(content, tmp_path, "train")
    (message,) = problems(split)[UNREADABLE]
    assert message.startswith(name)
    assert split.files == ["good.jpg"]


def test_text_named_as_an_image(tmp_path):
    split = examine(damaged_file(tmp_path, "a.jpg", b"hello"), tmp_path, "train")
    (problem,) = problems(split)[UNREADABLE]
    assert problem.startswith("a.jpg: not an image, or not in a format that training")


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16", "CMYK"])
def test_images_of_other_modes_are_read(tmp_path, mode):
    name = "a.tif" if mode == "CMYK" else "a.png"
    photograph(tmp_path / name, mode=mode)
    listed = [dict(id="x", file_name=name)]  # no size, an id that is no number
    objects = [box(1, "x", "c")]
    categories = [dict(id="c", name="ant")]
    content = dict(images=listed, annotations=objects, categories=categories)
    split = examine(content, tmp_path, "train")
    assert problems(split) == {}
    assert split.images == [dict(id=1, file_name=name, width=WIDTH, height=HEIGHT)]
    assert split.categories == [dict(id=1, name="ant")]
    pixels, sample = split.sample(0)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert sample.gt_instances.masks.sum() == 600


@pytest.mark.parametrize("orientation", range(2, 9))
def test_photographs_that_exif_turns(tmp_path, orientation):
    """Annotations as shown stay; those as stored are turned."""
    photograph(tmp_path / "a.jpg", orientation=orientation)
    swaps = orientation >= 5
    stored = dict(id=1, file_name="a.jpg", width=WIDTH, height=HEIGHT)
    content = dict(images=[stored], annotations=[box(1, 1)], categories=CATEGORIES[:1])
    split = examine(content, tmp_path, "train")
    assert set(problems(split)) == ({AS_STORED} if swaps else set())
    shown = (HEIGHT, WIDTH) if swaps else (WIDTH, HEIGHT)
    assert split.sizes == [shown]
    pixels, sample = split.sample(0)
    assert pixels.shape[1::-1] == shown
    if not swaps:
        return
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[12:32, 10:40] = 1
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(mask).save(tmp_path / "mask.png", exif=exif)
    truth = PIL.ImageOps.exif_transpose(PIL.Image.open(tmp_path / "mask.png"))
    assert (sample.gt_instances.masks[0] == np.asarray(truth)).all()
    content["images"] = [dict(stored, width=HEIGHT, height=WIDTH)]
    assert AS_STORED not in problems(examine(content, tmp_path, "train"))


def test_validation_has_the_ids_of_training(healthy):
    """The file's own ids and order do not count; a class that is not trained does."""
    root, content = healthy
    trained = examine(content, root, "train").categories
    other = copy.deepcopy(content)
    new = {3: 1, 7: 2}
    for annotation in other["annotations"]:
        annotation["category_id"] = new[annotation["category_id"]]
    other["categories"] = [dict(id=new[c["id"]], name=c["name"]) for c in CATEGORIES]
    split = examine(other, root, "val", trained)
    assert problems(split) == {}
    ids = [a["category_id"] for of_image in split.annotations for a in of_image]
    assert ids == [a["category_id"] for a in content["annotations"]]
    other["categories"][0]["name"] = "wasp"
    split = examine(other, root, "val", trained)
    assert len(problems(split)[NOT_TRAINED]) == 4
    assert split.categories == trained


def test_no_folder(tmp_path):
    with pytest.raises(errors.InputError, match="the val images: there is no folder"):
        examine(dict(categories=[]), tmp_path / "none", "val")


def test_compressed_runs_are_checked_as_pycocotools_reads_them():
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = rng.integers(1, 40, 2)
        mask = (rng.random((height, width)) < rng.random()).astype(np.uint8)
        counts = mask_api.encode(np.asfortranarray(mask))["counts"].decode()
        written, encoded = read_mask(
            dict(size=[int(height), int(width)], counts=counts), width, height
        )
        assert (mask_api.decode(encoded) == mask).all()
        assert written["counts"] == counts
        for wrong in (counts[:-1], counts + "0P", "", "é"):
            other = dict(size=[int(height), int(width)], counts=wrong)
            assert read_mask(other, width, height) is None
