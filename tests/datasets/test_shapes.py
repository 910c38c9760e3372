"""The built-in data set: its files agree with each other and with the toolboxes."""

import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from convnext_dense.commands.report import write_report
from convnext_dense.config.options import load_config
from convnext_dense.datasets import shapes
from convnext_dense.errors import InputError

from ..helpers.runs import DET, SEG


def label_of(root, split, number):
    path = root / "labels" / split / f"{number:06d}.png"
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_layout_and_json(shapes_root):
    for split, count in (("train", 6), ("val", 3)):
        content = json.loads(
            (shapes_root / f"annotations/instances_{split}.json").read_text()
        )
        assert [c["name"] for c in content["categories"]] == list(shapes.CLASSES)
        assert len(content["images"]) == count
        for image in content["images"]:
            picture = cv2.imread(
                str(shapes_root / "images" / split / image["file_name"])
            )
            label = label_of(shapes_root, split, image["id"])
            assert picture.shape == (image["height"], image["width"], 3)
            assert label.shape == picture.shape[:2]
            assert label.dtype == np.uint8


def test_polygons_are_the_labels(shapes_root):
    """Drawn back, the polygons of an image give its label map, pixel for pixel."""
    coco = COCO(shapes_root / "annotations/instances_train.json")
    holes = 0
    for number in coco.imgs:
        label = label_of(shapes_root, "train", number)
        drawn = np.zeros_like(label)
        # What is visible of one object is not of another.
        areas = [a["area"] for a in coco.loadAnns(coco.getAnnIds(number))]
        assert sum(areas) == (label > 0).sum()
        # Later objects are in front: they cover the holes they cut.
        for annotation in coco.loadAnns(coco.getAnnIds(number)):
            mask = coco.annToMask(annotation).astype(bool)
            drawn[mask] = annotation["category_id"]
            holes += mask.sum() - annotation["area"]
            x, y, w, h = annotation["bbox"]
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert (columns[0], rows[0]) == (x, y)
            assert (columns[-1] + 1 - x, rows[-1] + 1 - y) == (w, h)
        assert np.array_equal(drawn, label)
    assert holes <= 0.02 * sum(a["area"] for a in coco.anns.values())


def test_objects_overlap_and_vary():
    rng = np.random.default_rng(0)
    pictures = [shapes.draw_picture(rng)[2] for _ in range(40)]
    areas = np.array([mask.sum() for objects in pictures for _, mask in objects])
    categories = {category for objects in pictures for category, _ in objects}
    assert categories == set(range(1, 1 + len(shapes.CLASSES)))
    assert areas.max() > 10 * areas.min()
    assert areas.min() > 100
    assert max(map(len, pictures)) >= 4


def test_a_seed_gives_the_same_pictures_and_another_seed_others(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        shapes.draw(tmp_path / name, seed, {"train": 2})
    a, b, c = (
        {p.relative_to(tmp_path / name): p.read_bytes() for p in files(tmp_path / name)}
        for name in "abc"
    )
    assert a == b
    assert a.keys() == c.keys()
    assert all(a[k] != c[k] for k in a)


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_draws_once_and_whole(tmp_path, monkeypatch):
    calls = []

    def draw(root, seed):
        calls.append(root)
        (root / "part").write_text("drawn")

    monkeypatch.setattr(shapes, "draw", draw)
    target = tmp_path / "deep" / "shapes"
    shapes.draw_once(target)
    shapes.draw_once(target)
    assert len(calls) == 1
    assert (target / "part").read_text() == "drawn"
    assert [p.name for p in target.parent.iterdir()] == ["shapes"]


def test_a_stopped_drawing_leaves_nothing(tmp_path, monkeypatch):
    def draw(root, seed):
        (root / "part").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "draw", draw)
    with pytest.raises(KeyboardInterrupt):
        shapes.draw_once(tmp_path / "shapes")
    assert not list(tmp_path.iterdir())


def test_the_second_of_two_drawers_uses_the_firsts(tmp_path, monkeypatch):
    target = tmp_path / "shapes"

    def draw(root, seed):
        target.mkdir()  # the other process is done first
        (target / "part").write_text("theirs")
        (root / "part").write_text("mine")

    monkeypatch.setattr(shapes, "draw", draw)
    shapes.draw_once(target)
    assert (target / "part").read_text() == "theirs"
    assert [p.name for p in tmp_path.iterdir()] == ["shapes"]


@pytest.mark.parametrize("file", [DET, SEG])
def test_a_report_draws_nothing(file, tmp_path, monkeypatch):
    """In another folder than that of its run, it finds no data."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="the val data is not there"):
        write_report._validate(load_config(str(file)), None)
    assert not list(tmp_path.iterdir())
