"""Data sets in the formats of other tools: found, read exactly, and nothing lost."""

import json
import re

import numpy as np
import pytest

from convnext_dense.config.options import load_config
from convnext_dense.datasets.custom.formats import labelme, yolo
from convnext_dense.datasets.custom.formats.content import (
    BAD_FILE,
    BAD_OBJECT,
    NO_FILE,
    NO_IMAGE,
    TWO_IMAGES,
)
from convnext_dense.datasets.custom.prepare import Options, examine, prepare
from convnext_dense.errors import InputError
from convnext_dense.utils.masks import to_bitmap

from ..helpers.custom_data import coco, photograph, save
from ..helpers.formats import (
    CLASSES,
    OBJECTS,
    content_of,
    photographs,
    png,
    shape,
    text,
    voc,
    voc_object,
    write_labelme,
    write_voc,
    write_yolo,
    yolo_line,
)
from ..helpers.formats import (
    labelme as labelme_file,
)
from ..helpers.paths import ROOT
from ..helpers.runs import DET

TRAIN, VAL = ("a", "b", "c"), ("d",)
NAMES = "names: [bee, ant]\n"
LINES = "bee\nant\n"


def read(path, **more):
    return examine(Options(data=str(path), **more))


def ultralytics(root):
    write_yolo(root / "images/train", root / "labels/train", TRAIN)
    write_yolo(root / "images/val", root / "labels/val", VAL)
    text(root / "data.yaml", f"path: .\ntrain: images/train\nval: images/val\n{NAMES}")


def roboflow(root):
    for folder, stems in (("train", TRAIN), ("valid", VAL), ("test", VAL)):
        write_yolo(root / folder / "images", root / folder / "labels", stems)
    lines = (
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\n"
    )
    text(root / "data.yaml", lines + "names: ['bee', 'ant']\nroboflow:\n  version: 1\n")
    text(root / "README.roboflow.txt", "exported")


def fiftyone(root):
    ultralytics(root)
    (root / "data.yaml").unlink()
    lines = "path: /home/somebody/export\ntrain: ./images/train/\nval: ./images/val/\n"
    text(root / "dataset.yaml", lines + "names:\n  0: bee\n  1: ant\n")


def lists_of_images(root):
    write_yolo(root / "images", root / "labels")
    text(root / "train.txt", "./images/a.jpg\n./images/b.jpg\n\n./images/c.jpg\n")
    text(root / "val.txt", "./images/d.jpg\n")
    text(root / "data.yaml", f"train: train.txt\nval: val.txt\n{NAMES}")


def list_of_folders(root):
    for stem in TRAIN:
        write_yolo(root / stem / "images", root / stem / "labels", [stem])
    write_yolo(root / "v/images", root / "v/labels", VAL)
    text(root / "a.yml", f"train: [a/images, b/images, c/images]\nval: v\n{NAMES}")


def cvat_ultralytics(root):
    ultralytics(root)
    for split, stems in (("train", TRAIN), ("val", VAL)):
        names = [f"data/images/{split}/{stem}.jpg" for stem in stems]
        text(root / f"{split}.txt", "\n".join(names))
    text(root / "data.yaml", f"path: .\ntrain: train.txt\nval: val.txt\n{NAMES}")


def cvat_yolo_1_1(root):
    folders = {"obj_train_data": TRAIN, "obj_valid_data": VAL}
    for (folder, stems), split in zip(folders.items(), ("train", "valid"), strict=True):
        write_yolo(root / folder, root / folder, stems)
        names = [f"data/{folder}/{stem}.jpg" for stem in stems]
        text(root / f"{split}.txt", "\n".join(names))
    text(root / "obj.names", LINES)
    text(
        root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names"
    )


def roboflow_darknet(root):
    for folder, stems in (("train", TRAIN), ("valid", VAL)):
        write_yolo(root / folder, root / folder, stems)
        text(root / folder / "_darknet.labels", LINES)


def label_studio(root):
    write_yolo(root / "images", root / "labels")
    text(root / "classes.txt", LINES)
    text(root / "notes.json", json.dumps(dict(categories=[], info={})))


def labelimg_yolo(root):
    write_yolo(root, root)
    text(root / "classes.txt", LINES)


def pascal_voc(root):
    write_voc(root / "JPEGImages", root / "Annotations")
    text(root / "ImageSets/Main/train.txt", "a\nb\nc\n")
    text(root / "ImageSets/Main/val.txt", "d\n")
    text(root / "ImageSets/Main/trainval.txt", "a\nb\nc\nd\n")
    text(root / "ImageSets/Main/bee_train.txt", "a  1\nb -1\nc -1\n")


def voc_years(root):
    for year, train, val in (("VOC2007", "ab", "d"), ("VOC2012", "c", "")):
        folder = root / year
        write_voc(folder / "JPEGImages", folder / "Annotations", [*train, *val])
        text(folder / "ImageSets/Main/train.txt", "\n".join(train))
        text(folder / "ImageSets/Main/val.txt", "\n".join(val))


def labelimg_voc(root):
    write_voc(root, root)


def roboflow_voc(root):
    for folder, stems in (("train", TRAIN), ("valid", VAL), ("test", VAL)):
        write_voc(root / folder, root / folder, stems)


def cvat_voc(root):
    write_voc(root / "JPEGImages", root / "Annotations")
    text(root / "ImageSets/Main/default.txt", "a\nb\nc\nd\n")
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbee:1,2,3::\n")


def voc_apart(root):
    for folder, stems in (("train", TRAIN), ("val", VAL)):
        write_voc(root / "images" / folder, root / "annotations" / folder, stems)


def labelme_beside(root):
    write_labelme(root, root)


def labelme_splits(root):
    write_labelme(root / "train", root / "train", TRAIN)
    write_labelme(root / "val", root / "val", VAL)


def labelme_apart(root):
    write_labelme(root / "images", root / "json")
    for file in (root / "json").glob("*.json"):
        content = json.loads(file.read_text())
        content["imagePath"] = rf"..\images\{content['imagePath']}"
        file.write_text(json.dumps(content))


def vott(root):
    """It writes lists of one class only, and names with endings."""
    write_voc(root / "JPEGImages", root / "Annotations")
    for name in CLASSES:
        text(root / f"ImageSets/Main/{name}_train.txt", "a.jpg 1\nb.jpg -1\nc.jpg -1\n")
        text(root / f"ImageSets/Main/{name}_val.txt", "d.jpg 1\n")


def colab(root):
    """A data.yaml and lists with paths of another machine."""
    ultralytics(root)
    names = [f"/content/set/images/train/{stem}.jpg" for stem in TRAIN]
    text(root / "list.txt", "\n".join(names))
    lines = "train: C:\\set\\list.txt\nval: /content/set/images/val\n"
    text(root / "data.yaml", lines.replace("C:\\set\\", "") + NAMES)


def unpacked_into_a_folder(root):
    ultralytics(root / "my export")


DRAWN = None  # the layout has no validation split
LAYOUTS = {
    ultralytics: ("YOLO", VAL),
    roboflow: ("YOLO", VAL),
    fiftyone: ("YOLO", VAL),
    lists_of_images: ("YOLO", VAL),
    list_of_folders: ("YOLO", VAL),
    cvat_ultralytics: ("YOLO", VAL),
    cvat_yolo_1_1: ("YOLO", VAL),
    roboflow_darknet: ("YOLO", VAL),
    label_studio: ("YOLO", DRAWN),
    labelimg_yolo: ("YOLO", DRAWN),
    pascal_voc: ("Pascal VOC", VAL),
    voc_years: ("Pascal VOC", VAL),
    labelimg_voc: ("Pascal VOC", DRAWN),
    roboflow_voc: ("Pascal VOC", VAL),
    cvat_voc: ("Pascal VOC", DRAWN),
    voc_apart: ("Pascal VOC", VAL),
    labelme_beside: ("labelme", DRAWN),
    labelme_splits: ("labelme", VAL),
    labelme_apart: ("labelme", DRAWN),
    vott: ("Pascal VOC", VAL),
    colab: ("YOLO", VAL),
    unpacked_into_a_folder: ("YOLO", VAL),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    """Every image and object of the data set, in the split that the layout says."""
    name, val_stems = LAYOUTS[layout]
    layout(tmp_path)
    train, val = read(tmp_path)
    assert train.source.startswith(f"{name}, ")
    problems = {
        p.what for s in (train, val) for p, _ in s.problems if p.level != "note"
    }
    assert problems <= {"classes without objects"}
    content = {**content_of(train), **content_of(val)}
    assert content == OBJECTS
    assert train.classes == (CLASSES if name == "YOLO" else tuple(sorted(CLASSES)))
    assert not train.has_masks
    if val_stems:
        assert set(content_of(val)) == set(val_stems)
    else:
        assert len(val.files) == 1


def problems_of(split):
    """Type -> names, without notes and classes that are not used."""
    return {p: n for p, n in split.problems if p.what != "classes without objects"}


def one_yolo(root, lines, more=""):
    """Two images; the label file of the first has a good line and those given."""
    write_yolo(root / "images", root / "labels", "ab")
    text(root / "labels/a.txt", yolo_line(1, (4, 6, 30, 20)) + lines)
    text(root / "data.yaml", f"train: images\n{NAMES}{more}")
    return root


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0 .5 .5 .2\n", "4 values"),
        ("0 .5 .5 .2 .2 .9\n", "6 values: is the last one a confidence?"),
        ("0 .1 .1 .9 .1 .5 .9 .5\n", "8 values"),
        ("0 nan .5 .2 .2\n", "nan is no number"),
        ("0 .5 .5 .2 inf\n", "inf is no number"),
        ("bee .5 .5 .2 .2\n", "bee is no number"),
        ("0 0,5 .5 .2 .2\n", "0,5 is no number"),
        ("0 32 24 10 10\n", "values outside 0 to 1: are they pixels?"),
        ("0 .5 .5 -.2 .2\n", "values outside 0 to 1"),
        ("0 .1 .1 1.2 .1 .5 .9\n", "values outside 0 to 1"),
        ("2 .5 .5 .2 .2\n", "class 2 of 2 classes"),
        ("-1 .5 .5 .2 .2\n", "class -1 of 2 classes"),
        ("0.5 .5 .5 .2 .2\n", "class 0.5 of 2 classes"),
    ],
)
def test_lines_that_are_refused(tmp_path, line, says):
    """The file and the line are named; the other objects of the image are read."""
    (split,) = read(one_yolo(tmp_path, "\n" + line))
    ((problem, names),) = problems_of(split).items()
    assert problem in (yolo.BAD_LINE, yolo.NO_CLASS)
    assert problem.level == "error"
    assert len(names) == 1
    assert names[0].startswith(f"labels/a.txt line 3: {says}")
    assert content_of(split)["a"] == [("ant", (4, 6, 30, 20))]
    allowed = read(tmp_path, allow_dropped=True)
    assert not any(s.problems.stop for s in allowed)


@pytest.mark.parametrize(
    "line", ["0.0 .5 .5 .25 .5", "0 0.5 5e-1 .25 .5\r", "0\t.5 .5  .25 .5   "]
)
def test_lines_as_tools_write_them(tmp_path, line):
    train, val = read(one_yolo(tmp_path, line))
    objects = {**content_of(train), **content_of(val)}["a"]
    assert objects[1] == ("bee", (24, 12, 40, 36))


def test_polygons_of_yolo_stay_polygons(tmp_path):
    one_yolo(tmp_path, "")
    polygon = [0.25, 0.125, 0.75, 0.125, 0.5, 0.75]
    line = f"1 {' '.join(map(str, polygon))}\n"
    text(tmp_path / "labels/a.txt", line)
    text(tmp_path / "labels/b.txt", line)
    train, _ = read(tmp_path)
    assert train.annotations[0][0]["segmentation"] == [[16, 6, 48, 6, 32, 36]]
    assert train.annotations[0][0]["bbox"] == [16, 6, 32, 30]
    # A box among polygons has no mask: told, with the way to train on all of them.
    text(tmp_path / "labels/b.txt", line + yolo_line(0, (4, 6, 30, 20)))
    (split,) = read(tmp_path)
    assert "objects without a mask" in problems_of(split).popitem()[0].what
    train, val = read(tmp_path, boxes_only=True)
    assert len(train.annotations[0]) + len(val.annotations[0]) == 3


def test_keypoints_are_told(tmp_path):
    """With kpt_shape, what follows a box are keypoints, not a polygon."""
    keypoints = "0 .5 .5 .25 .5 .1 .2 2 .3 .4 1\n"
    train, val = read(one_yolo(tmp_path, keypoints, "kpt_shape: [2, 3]\n"))
    assert {**content_of(train), **content_of(val)}["a"][1][1] == (24, 12, 40, 36)
    assert not train.has_masks
    assert train.source.endswith("keypoints are not used")


def test_photographs_that_exif_turns(tmp_path):
    """Fractions are of the image as viewers show it, as Ultralytics has them."""
    one_yolo(tmp_path, "")
    photograph(tmp_path / "images/a.jpg", 1, orientation=6)  # 48 x 64
    text(tmp_path / "labels/a.txt", "0 .5 .5 .5 .5\n")
    train, val = read(tmp_path)
    assert {**content_of(train), **content_of(val)}["a"] == [("bee", (12, 16, 36, 48))]
    assert not problems_of(train)


def test_images_without_label_files(tmp_path):
    """A few are images without objects, and counted; more than half are an error."""
    write_yolo(tmp_path / "images", tmp_path / "labels")
    text(tmp_path / "classes.txt", LINES)
    (tmp_path / "labels/c.txt").unlink()
    train, val = read(tmp_path)
    assert len(train.files) + len(val.files) == 4
    assert "1 images have none, and so no objects" in train.source
    (tmp_path / "labels/a.txt").unlink()
    (tmp_path / "labels/b.txt").unlink()
    (split,) = read(tmp_path)
    assert problems_of(split) == {
        yolo.NO_LABELS: ["images/a.jpg", "images/b.jpg", "images/c.jpg"]
    }


def test_label_files_without_images(tmp_path):
    one_yolo(tmp_path, "")
    text(tmp_path / "labels/lost.txt", yolo_line(0, (4, 6, 30, 20)))
    text(tmp_path / "labels/classes.txt", LINES)
    (split,) = read(tmp_path)
    assert problems_of(split) == {NO_IMAGE: ["labels/lost.txt"]}
    (tmp_path / "labels/lost.txt").write_bytes(b"\xff")
    photograph(tmp_path / "images/lost.png", 7)
    (split,) = read(tmp_path)
    ((problem, names),) = problems_of(split).items()
    assert problem == BAD_FILE
    assert names[0].startswith("labels/lost.txt: it is not text in UTF-8")


def test_listed_images_that_are_missing_or_damaged(tmp_path):
    lists_of_images(tmp_path)
    text(tmp_path / "train.txt", "./images/a.jpg\n./images/gone.jpg\n./images/b.jpg\n")
    (tmp_path / "images/b.jpg").write_bytes(b"no image")
    train, _ = read(tmp_path)
    named = {p.what: names for p, names in problems_of(train).items()}
    assert named["images that are not in the folder"][0].startswith("gone.jpg")
    assert named["images that cannot be read or resized"][0].startswith("b.jpg: ")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("train: images\n", "names no classes: add names"),
        ("train: images\nnames: []\n", "names no classes"),
        (NAMES, "neither"),  # nothing says that it is of YOLO data
        (f"val: images\n{NAMES}", "names no training images: add a line train:"),
        (f"train: gone\n{NAMES}", "train names gone, which is not there (looked for"),
        (f"train: labels\n{NAMES}", "which has no images"),
        (f"train: [1]\n{NAMES}", "train is neither a folder"),
        (f"train: images\nnc: 3\n{NAMES}", "has nc: 3, and 2 names"),
        ("train: images\nnames: {0: a, 2: b}\n", "names has no class 1"),
        ("train: images\nnames: {a: 0, b: 1}\n", "a key that is no class index"),
        (f"train: images\nkpt_shape: 17\n{NAMES}", "kpt_shape is not"),
    ],
)
def test_descriptions_that_are_refused(tmp_path, content, says):
    one_yolo(tmp_path, "")
    (tmp_path / "labels/a.txt").unlink()
    (tmp_path / "labels/b.txt").unlink()
    file = text(tmp_path / "data.yaml", content)
    with pytest.raises(InputError, match=re.escape(says)):
        read(file if says != "neither" else tmp_path)


def test_yaml_is_data_of_bounded_size(tmp_path):
    one_yolo(tmp_path, "")
    bomb = "a: &a [x, x, x]\n" + "b: &b [*a, *a]\n" + f"train: images\n{NAMES}"
    code = f"train: images\n{NAMES}x: !!python/object/apply:os.system [id]\n"
    for content, says in (
        (bomb, "has YAML aliases"),
        (code, "is not YAML: could not determine a constructor"),
        ("[" * 10**5, "is nested too deeply|is not YAML"),
        ("x" * 2 * 10**6, "the longest YAML that is read has 1000000"),
        ("[", "is not YAML"),
        ("- a", "is not a data.yaml"),
    ):
        with pytest.raises(InputError, match=says):
            read(text(tmp_path / "data.yaml", content))


def test_several_descriptions(tmp_path):
    ultralytics(tmp_path)
    text(tmp_path / "small.yaml", f"train: images/val\nval: images/val\n{NAMES}")
    text(tmp_path / "hyp.yaml", "lr0: 0.01\n")
    with pytest.raises(InputError, match=r"data.yaml, small.yaml; name one as --data"):
        read(tmp_path)
    train, _ = read(tmp_path / "data.yaml")
    assert len(train.files) == 3


def test_labels_without_names_of_classes(tmp_path):
    write_yolo(tmp_path / "images", tmp_path / "labels")
    with pytest.raises(InputError, match=r"write \S+classes.txt with a name on each"):
        read(tmp_path)
    text(tmp_path / "classes.txt", LINES)  # what the message says
    assert read(tmp_path)[0].classes == CLASSES
    text(tmp_path / "labels/classes.txt", "ant\nbee\n")
    with pytest.raises(InputError, match="name different classes: remove one"):
        read(tmp_path)


def one_voc(root, xml):
    """Two images; the file of the first has the text."""
    write_voc(root, root, "ab")
    text(root / "a.xml", xml)
    return root


def test_boxes_of_pascal_voc_count_from_1(tmp_path):
    """A box from 1 to the width covers the image; corners may be in any order."""
    objects = voc_object("bee", (1, 1, 64, 48)) + voc_object("bee", (20, 30, 10, 10))
    train, val = read(one_voc(tmp_path, voc("a.jpg", objects)))
    boxes = {**content_of(train), **content_of(val)}["a"]
    assert [at for _, at in boxes] == [(0, 0, 64, 48), (9, 9, 20, 30)]


def test_difficult_objects_and_polygons_of_pascal_voc(tmp_path):
    polygon = "".join(
        f"<{axis}{i}>{side}</{axis}{i}>"
        for i, point in enumerate(((5, 7), (31, 7), (31, 21)), 1)
        for axis, side in zip("xy", point, strict=True)
    )
    polygon = f"<polygon>{polygon}</polygon>"
    objects = voc_object(more=polygon) + voc_object(
        more=f"{polygon}<difficult>1</difficult><truncated>1</truncated>"
    )
    for stem in "ab":
        one_voc(tmp_path, voc("a.jpg", objects))
        text(tmp_path / f"{stem}.xml", voc(f"{stem}.jpg", objects))
    train, val = read(tmp_path)
    first, second = train.annotations[0]
    assert first["segmentation"] == [[4, 6, 30, 6, 30, 20]]
    assert (first["iscrowd"], second["iscrowd"]) == (0, 1)
    assert train.counts["crowd regions"] == 1
    assert train.source.endswith("2 difficult objects are crowd regions")
    assert val.has_masks


@pytest.mark.parametrize(
    ("objects", "says"),
    [
        ("<object><name>bee</name></object>", "object 1 (bee): no bndbox of four"),
        (voc_object("", (1, 2, 3, 4)), "object 1 (): no name"),
        (voc_object(box=(1, "nan", 3, 4)), "object 1 (bee): no bndbox of four"),
        (voc_object(box=("x", 2, 3, 4)), "object 1 (bee): no bndbox of four"),
        (
            voc_object(more="<polygon><x1>1</x1><y1>?</y1></polygon>"),
            "object 1 (bee): a polygon has no numbers",
        ),
    ],
)
def test_objects_of_pascal_voc_that_are_refused(tmp_path, objects, says):
    one_voc(tmp_path, voc("a.jpg", objects + voc_object("ant", (5, 7, 30, 20))))
    (split,) = read(tmp_path)
    assert problems_of(split) == {
        BAD_OBJECT: [f"a.xml {says}" + " numbers" * ("four" in says)]
    }
    assert len(content_of(split)["a"]) == 1


def test_files_of_pascal_voc_that_are_refused(tmp_path):
    laughs = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><annotation>&y;'
    outside = '<!DOCTYPE a [<!ENTITY x SYSTEM "/etc/passwd">]><annotation>&x;'
    for xml, says in (
        (laughs, "it has a document type"),
        (outside, "it has a document type"),
        ("<annotation>", "it is not XML: no element found"),
        ("<annotation><object>" + "<a>" * 10**5, "it is not XML"),
        ("", "it is not XML"),
        ("<annotations/>", "it is not a Pascal VOC file"),
    ):
        (split,) = read(one_voc(tmp_path, xml))
        ((problem, names),) = problems_of(split).items()
        assert problem == BAD_FILE
        assert names[0].startswith(f"a.xml: {says}")


def test_encodings_of_pascal_voc(tmp_path):
    """UTF-8, or what the file declares; a declared one hides no document type."""
    one_voc(tmp_path, "")
    declared = '<?xml version="1.0" encoding="{}"?>'
    xml = voc("a.jpg", voc_object("蜂", (5, 7, 30, 20)))
    (tmp_path / "a.xml").write_bytes((declared.format("gbk") + xml).encode("gbk"))
    assert "蜂" in read(tmp_path)[0].classes
    hidden = '<!DOCTYPE a [<!ENTITY x "y">]><annotation/>'
    for content in (
        (declared.format("cp037") + hidden).encode("cp037"),
        declared.format("utf-7").encode() + hidden.encode("utf-7") + b"\xff",
        (declared.format("utf-16") + hidden).encode("utf-16"),
        declared.format("zlib").encode() + b"\xff",
    ):
        (tmp_path / "a.xml").write_bytes(content)
        ((problem, _),) = problems_of(read(tmp_path)[0]).items()
        assert problem == BAD_FILE


def test_every_problem_names_the_file_and_the_place(tmp_path):
    """Also those that all formats share, such as boxes outside their image."""
    one_yolo(tmp_path, "1 1.005 .5 .001 .2\n")
    (split,) = read(tmp_path)
    ((_, names),) = problems_of(split).items()
    assert names == ["object labels/a.txt line 2 in a.jpg"]


def test_sizes_of_pascal_voc(tmp_path):
    """Zeros mean that the size is not known; another size is an error."""
    train, _ = read(one_voc(tmp_path, voc("a.jpg", voc_object(), (0, 0))))
    assert not problems_of(train)
    (split,) = read(one_voc(tmp_path, voc("a.jpg", voc_object(), (640, 480))))
    assert "another size" in problems_of(split).popitem()[0].what


def test_lists_of_pascal_voc_without_files(tmp_path):
    pascal_voc(tmp_path)
    text(tmp_path / "ImageSets/Main/train.txt", "a\nb\nc\ngone\n")
    train, _ = read(tmp_path)
    assert problems_of(train) == {NO_FILE: ["gone"]}


WRITERS = {"Pascal VOC": (write_voc, ".xml"), "labelme": (write_labelme, ".json")}


@pytest.mark.parametrize("name", WRITERS)
def test_files_and_images_that_do_not_fit(tmp_path, name):
    """Renamed images are found; what fits nothing, or two, is named."""
    write, suffix = WRITERS[name]
    write(tmp_path, tmp_path)
    (tmp_path / f"a{suffix}").rename(tmp_path / f"x{suffix}")  # it names a.jpg
    (tmp_path / "b.jpg").rename(tmp_path / "b.png")  # it names b.jpg
    train, val = read(tmp_path)
    assert {**content_of(train), **content_of(val)} == OBJECTS
    photograph(tmp_path / "x.jpg", 9)
    photograph(tmp_path / "new.jpg", 11)
    (tmp_path / "d.jpg").unlink()
    (split,) = read(tmp_path)
    named = {p.what: names for p, names in problems_of(split).items()}
    assert [n.split(":")[0] for n in named.pop(TWO_IMAGES.what)] == [f"x{suffix}"]
    assert "d.jpg" in named.pop("images that are not in the folder")[0]
    left = named.pop("images without an annotation file")
    assert {"new.jpg"} <= set(left) <= {"new.jpg", "a.jpg"}
    assert not named


def masks_of(root, *shapes, **more):
    """The classes and bitmaps of two equal labelme files."""
    for stem in "ab":
        photographs(root, [stem])
        content = labelme_file(f"{stem}.jpg", shapes, **more)
        text(root / f"{stem}.json", json.dumps(content))
    train, val = read(root)
    assert not problems_of(train)
    names = {c["id"]: c["name"] for c in train.categories}
    return val, [
        (names[a["category_id"]], to_bitmap(a["segmentation"], 48, 64))
        for a in train.annotations[0]
    ]


def test_shapes_of_labelme(tmp_path):
    """Circles are filled, bitmaps are exact, and one group is one object."""
    bitmap = np.zeros((9, 7), bool)
    bitmap[2:5, 1:6] = True
    bitmap[8, 6] = True
    _, masks = masks_of(
        tmp_path,
        shape([(30, 24), (40, 24)], "circle", "circle"),
        shape([(50, 30), (56, 38)], "bitmap", "mask", mask=png(bitmap)),
        shape([(2, 2), (12, 2), (12, 12), (2, 12)], "group", group_id=1),
        shape([(22, 2), (32, 2), (32, 12), (22, 12)], "group", group_id=1),
        shape([(2, 22), (12, 32)], "group", "rectangle", group_id=2),
        shape([(2, 2), (12, 2), (12, 12)], "other", None, group_id=1),
    )
    masks = dict(reversed(masks))
    assert list(masks) == ["other", "group", "bitmap", "circle"]
    y, x = np.mgrid[:48, :64] + 0.5
    disc = (x - 30) ** 2 + (y - 24) ** 2 < 100
    assert (masks["circle"] ^ disc).sum() < 0.05 * disc.sum()
    whole = np.zeros((48, 64), bool)
    whole[30:39, 50:57] = bitmap
    assert (masks["bitmap"] == whole).all()
    assert masks["group"].sum() == 200  # both squares


def test_boxes_of_labelme(tmp_path):
    """Where all shapes are rectangles there are no masks; four corners are a box."""
    for stem in "ab":
        photographs(tmp_path, [stem])
        shapes = [
            shape([(30, 20), (4, 6)], "bee", "rectangle"),
            shape([(4, 6), (30, 6), (30, 20), (4, 20)], "bee", "rectangle"),
        ]
        text(tmp_path / f"{stem}.json", json.dumps(labelme_file(f"{stem}.jpg", shapes)))
    train, _ = read(tmp_path)
    assert [a["bbox"] for a in train.annotations[0]] == [[4, 6, 26, 14]] * 2
    assert not train.has_masks


def test_rectangles_beside_polygons_are_told(tmp_path):
    val, masks = masks_of(
        tmp_path,
        shape([(30, 20), (4, 6)], "bee", "rectangle"),
        shape([(4, 6), (30, 6), (30, 20)]),
    )
    assert masks[0][1].sum() == 26 * 14
    assert val.source.endswith("2 rectangles are masks too, beside polygons")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (shape([(1, 1), (9, 9)]), "a polygon of 2 points"),
        (shape([(1, 1)], shape_type="rectangle"), "a rectangle of 1 points"),
        (shape([(1, 1)], shape_type="circle"), "a circle of 1 points"),
        (shape([(1, 1), (2, float("nan")), (3, 3)]), "its points are not pairs"),
        (shape([(1, 1), (2,), (3, 3)]), "its points are not pairs"),
        (shape([]), "its points are not pairs"),
        (shape([(1, 1), (2, 1), (3, 3)], None), "no label"),
        (shape([(1, 1)], shape_type="cuboid"), "shape_type cuboid is not known"),
        (shape([(1, 1), (2, 2)], shape_type="mask"), "its mask is not base64"),
        (shape([(1, 1)], shape_type="mask", mask="AAAA"), "not an image"),
        (
            shape([(60, 1)], shape_type="mask", mask=png(np.ones((9, 9), bool))),
            "its mask reaches outside the image",
        ),
        ("text", "no label"),
    ],
)
def test_shapes_that_are_refused(tmp_path, wrong, says):
    write_labelme(tmp_path, tmp_path, "ab")
    good = shape([(4, 6), (30, 20)], "bee", "rectangle")
    content = json.dumps(labelme_file("a.jpg", [good, wrong]))
    text(tmp_path / "a.json", content)
    (split,) = read(tmp_path)
    ((problem, names),) = problems_of(split).items()
    assert problem == BAD_OBJECT
    assert re.match(rf"a\.json shape 2 \(.*\): {says}", names[0])
    assert len(content_of(split)["a"]) == 1


def test_shapes_that_are_no_objects_are_counted(tmp_path):
    write_labelme(tmp_path, tmp_path, "ab")
    shapes = [
        shape([(4, 6), (30, 20)], "bee", "rectangle"),
        shape([(4, 6)], "eye", "point"),
        shape([(4, 6), (8, 8), (9, 9)], "wing", "linestrip"),
        shape([(4, 6), (30, 6), (30, 20)], "__ignore__"),
    ]
    text(tmp_path / "a.json", json.dumps(labelme_file("a.jpg", shapes)))
    train, _ = read(tmp_path)
    assert {p: len(n) for p, n in problems_of(train).items()} == {
        labelme.NO_AREA: 2,
        labelme.IGNORED_SHAPES: 1,
    }
    assert train.classes == ("ant", "bee")


def test_images_inside_labelme_files(tmp_path):
    write_labelme(tmp_path, tmp_path, "ab")
    (tmp_path / "a.jpg").unlink()
    text(tmp_path / "a.json", json.dumps(labelme_file("a.jpg", imageData="AAAA")))
    text(tmp_path / "c.json", "{")
    (split,) = read(tmp_path)
    assert problems_of(split).keys() == {labelme.IMAGE_INSIDE, BAD_FILE}


def test_coco_comes_first_and_the_others_are_named(tmp_path):
    """Roboflow's and CVAT's archives unpacked into one folder."""
    roboflow(tmp_path)
    content = coco(tmp_path / "train/images")
    save(content, tmp_path / "train/_annotations.coco.json")
    train, _ = read(tmp_path)
    assert train.source.startswith("COCO, ")
    assert train.source.endswith("not read: YOLO (data.yaml)")
    assert len(train.files) + len(read(tmp_path)[1].files) == 6


def test_folders_of_which_the_split_is_not_known(tmp_path):
    write_voc(tmp_path / "train", tmp_path / "train", TRAIN)
    write_voc(tmp_path / "more", tmp_path / "more", VAL)
    with pytest.raises(InputError, match="in more, whose split is not known"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["yolo", "voc", "labelme"])
def test_boxes_are_those_of_supervision(tmp_path, name):
    """tests/data/formats.json has what supervision 0.31.2 reads from the same files."""
    expected = json.loads((ROOT / "tests/data/formats.json").read_text())[name]
    photograph(tmp_path / "a.png", 1)
    photograph(tmp_path / "b.png", 2)
    suffix = {"yolo": ".txt", "voc": ".xml", "labelme": ".json"}[name]
    for stem in "ab":
        content = expected["text"].replace("a.png", f"{stem}.png")
        text(tmp_path / f"{stem}{suffix}", content)
    if name == "yolo":
        text(tmp_path / "classes.txt", "\n".join(expected["names"]))
    train, _ = read(tmp_path, boxes_only=True)
    (objects,) = content_of(train).values()
    assert [label for label, _ in objects] == [
        label for label, _ in expected["objects"]
    ]
    for (_, at), (_, reference) in zip(objects, expected["objects"], strict=True):
        assert at == pytest.approx(reference, abs=1e-3)


def test_a_config_is_fitted_to_yolo_data(tmp_path):
    """The run has COCO files of its own, and its report says what was read."""
    ultralytics(tmp_path / "data")
    options = Options(data=str(tmp_path / "data/data.yaml"))
    cfg = load_config(str(DET), work_dir=str(tmp_path / "run"))
    prepare(cfg, options, 1)
    assert cfg.train_dataloader.dataset.metainfo.classes == CLASSES
    written = json.loads((tmp_path / "run/data/train.json").read_text())
    assert len(written["annotations"]) == 3
    assert all(isinstance(a["id"], int) for a in written["annotations"])
    report = (tmp_path / "run/data/inspection.txt").read_text()
    assert "read from YOLO, 3 label files in labels/train" in report
