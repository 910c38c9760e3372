"""predict and test in tiles; the classes, crops and segments that predict keeps."""

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from pycocotools import mask as rle

from convnext_dense.commands.predict import results, windows
from convnext_dense.commands.predict.class_filter import labels_of
from convnext_dense.commands.predict.inputs import _named, find
from convnext_dense.commands.predict.recognition import Media
from convnext_dense.datasets import shapes
from convnext_dense.engine.tiling.masks import RunLengthMasks
from convnext_dense.errors import InputError
from convnext_dense.reports.drawing import Drawer

from ..helpers.mmengine_state import logged
from ..helpers.runs import DET, SEG, options
from ..helpers.untrained import FEW, SMALL, save_untrained

SIDE = 160  # the pipeline keeps images of 160 x 160 as they are


@pytest.fixture(scope="module")
def det(tmp_path_factory):
    settings = f"backbone=dict({SMALL}), test_cfg=dict({FEW})"
    return save_untrained(DET, tmp_path_factory.mktemp("det"), settings)


@pytest.fixture(scope="module")
def seg(tmp_path_factory):
    return save_untrained(
        SEG, tmp_path_factory.mktemp("seg"), f"backbone=dict({SMALL})"
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory, shapes_root):
    """Four pictures of 160 x 160, and one that consists of them."""
    folder = tmp_path_factory.mktemp("images")
    files = sorted((shapes_root / "images").rglob("*.jpg"))[:4]
    pictures = [cv2.resize(cv2.imread(str(file)), (SIDE, SIDE)) for file in files]
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    rows = [np.hstack(pictures[:2]), np.hstack(pictures[2:])]
    cv2.imwrite(str(folder / "mosaic.png"), np.vstack(rows))
    return folder


def predictions(out):
    by_image = {}
    names = {
        image["id"]: image["file_name"]
        for image in json.loads((out / "images.json").read_text())["images"]
    }
    for result in json.loads((out / "predictions.json").read_text()):
        by_image.setdefault(names[result["image_id"]], []).append(result)
    return by_image


def test_objects_of_a_mosaic(tool, det, images, tmp_path):
    """Tiles that each see one picture find what is found in the pictures."""
    each = tool("predict", det[1], images / "[0-3].png", "--out", "each")
    tiles = tool(
        *("predict", det[1], images / "mosaic.png", "--out", "tiles", "--batch", "3"),
        *("--tile", SIDE, "--overlap", "0"),
    )
    assert (each.code, tiles.code) == (0, 0)
    assert "resizes tiles" not in tiles.out
    (mosaic,) = predictions(tmp_path / "tiles").values()
    expected = []
    for name, objects in predictions(tmp_path / "each").items():
        row, column = divmod(int(name[0]), 2)
        for result in objects:
            x, y, *size = result["bbox"]
            mask = np.zeros((2 * SIDE, 2 * SIDE), np.uint8)
            top, left = SIDE * row, SIDE * column
            place = np.s_[top : top + SIDE, left : left + SIDE]
            mask[place] = rle.decode(result["segmentation"])
            expected.append(
                (result["score"], [x + SIDE * column, y + SIDE * row, *size], mask)
            )
    expected.sort(key=lambda item: -item[0])
    assert len(mosaic) == len(expected) == 20
    for result, (score, box, mask) in zip(mosaic, expected, strict=True):
        assert result["score"] == pytest.approx(score, abs=1e-5)
        np.testing.assert_allclose(result["bbox"], box, atol=1e-2)
        differs = rle.decode(result["segmentation"]) != mask
        assert differs.sum() <= 0.01 * mask.sum() + 2


@pytest.mark.parametrize("task", ["det", "seg"])
def test_a_tile_as_large_as_the_image_changes_nothing(
    tool, request, images, tmp_path, task
):
    checkpoint = request.getfixturevalue(task)[1]
    for out, flags in ("plain", ()), ("tiled", ("--tile", "320", "--overlap", "0.5")):
        image = images / "mosaic.png"
        assert tool("predict", checkpoint, image, "--out", out, *flags).code == 0
    names = {path.name for path in (tmp_path / "plain").rglob("*") if path.is_file()}
    of_task = {
        "det": {"mosaic.jpg", "images.json", "predictions.json"},
        "seg": {"mosaic.jpg", "mosaic.png"},
    }
    assert names == of_task[task]
    for name in names - {"mosaic.jpg"}:  # mmdet jitters the colours of masks
        (plain,) = (tmp_path / "plain").rglob(name)
        (tiled,) = (tmp_path / "tiled").rglob(name)
        assert plain.read_bytes() == tiled.read_bytes()


def test_objects_in_tiles_are_those_of_test(tool, det, shapes_root, tmp_path):
    config, checkpoint = det
    flags = ("--tile", "200", "--overlap", "0.3")
    one_image = "test_dataloader.dataset.indices=1"
    settings = options(f"data_root={shapes_root}", one_image)
    done = tool(
        *("test", config, checkpoint, "--out", "truth.pkl", "--show-dir", "shown"),
        *(*flags, *settings),
    )
    assert done.code == 0
    assert "coco/segm_mAP" in done.out
    (shown,) = (tmp_path / "shown").glob("*.jpg")
    image = shapes_root / "images/val" / shown.name
    done = tool("predict", checkpoint, image, "--out", "out", *flags)
    assert done.code == 0
    assert (
        "resizes tiles of 200 x 200 pixels to 160 x 160: --tile 160 keeps" in done.out
    )
    by_image = predictions(tmp_path / "out")
    for sample in pickle.loads((tmp_path / "truth.pkl").read_bytes()):
        expected = sample["pred_instances"]
        objects = by_image[Path(sample["img_path"]).name]
        assert len(objects) == len(expected["scores"]) > 5
        scores = [result["score"] for result in objects]
        np.testing.assert_allclose(scores, expected["scores"], atol=1e-5)
        for result, mask in zip(objects, expected["masks"], strict=True):
            same = rle.iou([result["segmentation"]], [mask], [0]).item()
            assert same in (0, 1) or same > 0.99


def test_label_maps_in_tiles_are_those_of_test(tool, seg, shapes_root, tmp_path):
    config, checkpoint = seg
    flags = ("--tile", "100")
    one_image = "test_dataloader.dataset.indices=1"
    settings = options(f"data_root={shapes_root}", one_image)
    done = tool(
        *("test", config, checkpoint, "--out", "truth", "--show-dir", "shown"),
        *(*flags, *settings),
    )
    assert done.code == 0
    assert "mIoU" in done.out
    (file,) = (tmp_path / "truth").iterdir()
    (shown,) = (tmp_path / "shown").rglob("*")  # in no folder below it
    assert shown.name == file.name
    image = (shapes_root / "images/val" / file.name).with_suffix(".jpg")
    assert tool("predict", checkpoint, image, "--out", "out", *flags).code == 0
    truth = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    labels = cv2.imread(str(tmp_path / "out/labels" / file.name), -1)
    assert len(np.unique(truth)) > 1
    assert np.mean(labels != truth) < 1e-3


def test_classes_and_crops(tool, det, images, tmp_path):
    image, tiles = images / "mosaic.png", ("--tile", SIDE, "--overlap", "0")
    assert tool("predict", det[1], image, "--out", "all", *tiles).code == 0
    everything = predictions(tmp_path / "all")["mosaic.png"]
    ids = [result["category_id"] for result in everything]
    kept = min(ids, key=ids.count)
    assert ids.count(kept) < len(ids)
    name = shapes.CLASSES[kept - 1]
    scores = [r["score"] for r in everything if r["category_id"] == kept]
    again = ("predict", det[1], image, "--out", "out", "--save-crops", *tiles)
    assert tool(*again, "--score-thr", "0.01", "--classes", name).code == 0
    (results,) = predictions(tmp_path / "out").values()
    assert [result["score"] for result in results] == scores
    crops = {crop.name: crop for crop in (tmp_path / "out/crops").rglob("*.jpg")}
    assert {crop.parent.name for crop in crops.values()} == {name}
    assert len(crops) == len(scores)
    width, height = results[0]["bbox"][2:]
    shape = cv2.imread(str(crops["mosaic_1.jpg"])).shape
    assert abs(shape[0] - height) < 2
    assert abs(shape[1] - width) < 2
    # A second run is refused before it predicts, and takes no crop for an image.
    done = tool(*again)
    assert done.code == 2
    assert "exist already" in done.err
    selection = find([str(tmp_path / "out/**/*.jpg"), str(image)], tmp_path / "new")
    assert [source.path for source in selection.sources] == [image]


def test_names_of_classes():
    classes = ("traffic light", "car", "truck")
    assert labels_of(["truck", "car"], classes) == [1, 2]
    with pytest.raises(InputError, match=r"no class trafic light: did you mean traf"):
        labels_of(["car", "trafic light"], classes)
    with pytest.raises(InputError, match=r"no class x\. It has traffic light, car, tr"):
        labels_of(["x"], classes)


SHAPE = (48, 64)


def writer(folder, *classes, **options):
    return results.Results(folder, "mmdet", dict(classes=classes), 0.3, **options)


def sources(*names):
    return list(_named(dict.fromkeys(map(Path, names), Media.IMAGE)))


def test_images_without_objects_are_named(tmp_path):
    names = ("/a.png", "/b.png", "/c.png")
    predicted = writer(tmp_path, "x")
    for number, (source, score) in enumerate(
        zip(sources(*names), (0.9, 0.01, None), strict=True), 1
    ):
        boxes = [] if score is None else [[1, 2, 30.0, 40]]
        instances = InstanceData(
            bboxes=torch.tensor(boxes).reshape(-1, 4),
            labels=torch.zeros(len(boxes), dtype=torch.long),
            scores=torch.tensor([score] * len(boxes)),
        )
        sample = DetDataSample(pred_instances=instances)
        predicted.image(source, number, np.zeros((*SHAPE, 3), np.uint8), sample)
    predicted.close()
    with logged() as messages:
        predicted.say_if_nothing_is_drawn()
    assert messages == [
        "nothing above 0.3 in 2 of 3 files: b.png (the best was 0.01), "
        "c.png (no object was found)"
    ]


@pytest.mark.parametrize("kept", [None, [1]])
def test_segments_of_a_panoptic_model_are_written(tmp_path, kept):
    """With no objects beside them, as ``test_cfg.instance_on=False`` has it."""
    segments = torch.full((1, *SHAPE), 2)  # the number of classes: no segment
    segments[:, :10] = 1000  # the first thing
    segments[:, 20:30, 5:9] = 2000
    segments[:, 40:] = 1  # stuff
    predicted = writer(tmp_path, "car", "grass", things=1, labels=kept)
    (source,) = sources("/a.jpg")
    sample = DetDataSample(pred_panoptic_seg=PixelData(sem_seg=segments))
    predicted.image(source, 7, np.zeros((*SHAPE, 3), np.uint8), sample)
    predicted.close()
    assert not (tmp_path / "predictions.json").exists()
    content = json.loads((tmp_path / "panoptic.json").read_text())
    assert [c["isthing"] for c in content["categories"]] == [1, 0]
    (annotation,) = content["annotations"]
    assert (annotation["image_id"], annotation["file_name"]) == (7, "a.png")
    picture = cv2.imread(str(tmp_path / "panoptic/a.png"))[..., ::-1]
    ids = picture.astype(int) @ [1, 256, 256**2]  # as panopticapi's rgb2id
    expected = [
        (2, 8 * 64, [0, 40, 64, 8], 1),
        (1, 10 * 64, [0, 0, 64, 10], 1000),
        (1, 10 * 4, [5, 20, 4, 10], 2000),
    ][: 1 if kept else 3]
    infos = annotation["segments_info"]
    for info, (category, area, box, value) in zip(infos, expected, strict=True):
        assert info["iscrowd"] == 0
        assert (info["category_id"], info["area"], info["bbox"]) == (
            category,
            area,
            box,
        )
        mask = segments[0].numpy() == value
        np.testing.assert_array_equal(ids == info["id"], mask)
    assert (ids == 0).sum() == SHAPE[0] * SHAPE[1] - sum(e[1] for e in expected)


def test_large_pictures_have_no_seams(monkeypatch):
    """Windows of a picture are drawn as the whole is."""
    mask = np.zeros((90, 140), np.uint8)
    cv2.circle(mask, (70, 45), 30, 1, -1)
    instances = InstanceData(
        bboxes=torch.tensor([[40.0, 15, 101, 76], [5, 5, 60, 30]]),
        labels=torch.tensor([0, 1]),
        scores=torch.tensor([0.9, 0.4]),
        masks=RunLengthMasks([rle.encode(np.asfortranarray(mask))] * 2),
    )
    image = np.full((90, 140, 3), 80, np.uint8)
    meta = dict(classes=("car", "a long name"))
    sample = DetDataSample(pred_instances=instances)
    pictures = []
    for side in 1024, 47:
        monkeypatch.setattr(windows, "SIDE", side)
        drawer = windows.LargeDrawer(Drawer("mmdet", meta), meta)
        pictures.append(drawer.prediction(image, sample, 0.3))
        assert not np.array_equal(pictures[-1], drawer.prediction(image, sample, 0.5))
    difference = cv2.absdiff(*pictures)
    assert (difference.max(-1) > 60).mean() < 0.005  # of letters
    assert (pictures[0][mask > 0] != 80).any(1).mean() > 0.98
