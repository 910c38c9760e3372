"""Custom data, from the command line to the trained model."""

import copy
import json
import re

import numpy as np
import PIL.Image
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, DefaultScope
from mmengine.structures import InstanceData

from convnext_dense.config.options import load_config
from convnext_dense.datasets.custom import coco_check, label_check
from convnext_dense.datasets.custom.draw_split import draw_split
from convnext_dense.datasets.custom.layouts import find_dataset
from convnext_dense.datasets.custom.prepare import IN_BOTH, Options, examine, prepare
from convnext_dense.errors import InputError

from ..helpers.custom_data import (
    COLORS,
    box,
    coco,
    color_map,
    label_array,
    photograph,
    save,
    save_labels,
    write_label_maps,
)
from ..helpers.paths import ROOT, SHARED
from ..helpers.runs import DET, SEG, options

COCO = ROOT / "configs/det/cascade_mask_rcnn_convnext_t_coco.py"
MASK = ROOT / "configs/det/mask_rcnn_convnext_t_coco.py"
ADE = ROOT / "configs/seg/upernet_convnext_t_ade20k.py"


@pytest.fixture(scope="module")
def detection(tmp_path_factory):
    """A folder with a COCO file for each split; that of val has other ids."""
    root = tmp_path_factory.mktemp("objects")
    content = coco(root / "images")
    save(content, root / "train.json")
    other = copy.deepcopy(content)
    other["categories"] = [
        dict(id=1, name="ant <b>"),
        dict(id="2", name="Käfer"),
    ]
    for annotation in other["annotations"]:
        annotation["category_id"] = {3: 1, 7: "2"}[annotation["category_id"]]
    save(other, root / "val.json")
    return root


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory):
    root = tmp_path_factory.mktemp("label maps")
    color_map(root / "colors.txt")
    return write_label_maps(root, 5, "colors")


def coco_options(root, **more):
    named = dict(train_json=root / "train.json", train_images=root / "images")
    return Options(**{key: str(value) for key, value in {**named, **more}.items()})


def fitted(file, data, work_dir, epochs=2):
    """A config fitted to the data."""
    cfg = load_config(str(file), work_dir=str(work_dir))
    prepare(cfg, data, epochs)
    return cfg


def test_any_ids_and_order_give_the_right_labels(detection, tmp_path):
    """mmdet's data sets have the objects of the file, under the right class names.

    Predictions that equal the truth have an AP of 1 by mmdet's metric, also on a file
    with other ids.
    """
    data = coco_options(
        detection, val_json=detection / "val.json", val_images=detection / "images"
    )
    cfg = fitted(COCO, data, tmp_path)
    content = json.loads((detection / "train.json").read_text("utf-8"))
    name_of = {c["id"]: c["name"] for c in content["categories"]}
    file_of = {i["id"]: i["file_name"] for i in content["images"]}
    truth = {}
    for annotation in content["annotations"]:
        entry = name_of[annotation["category_id"]], tuple(annotation["bbox"])
        truth.setdefault(file_of[annotation["image_id"]], set()).add(entry)
    with DefaultScope.overwrite_default_scope("mmdet"):
        metric = METRICS.build(cfg.val_evaluator)
        for split_name in ("train", "val"):
            dataset = DATASETS.build(cfg[f"{split_name}_dataloader"].dataset)
            assert len(dataset) == 6  # the image without objects too
            classes = dataset.metainfo["classes"]
            for i in range(len(dataset)):
                info = dataset.get_data_info(i)
                objects = set()
                for instance in info["instances"]:
                    x1, y1, x2, y2 = instance["bbox"]
                    box_at = (x1, y1, x2 - x1, y2 - y1)
                    objects.add((classes[instance["bbox_label"]], box_at))
                name = info["img_path"].removeprefix(f"{detection / 'images'}/")
                assert objects == truth.get(name, set())
    metric.dataset_meta = dataset.metainfo
    metric.process({}, [perfect(dataset[i]["data_samples"]) for i in range(6)])
    result = metric.evaluate(6)
    assert result["coco/bbox_mAP"] == 1
    assert result["coco/segm_mAP"] == 1


def perfect(sample):
    truth = sample.gt_instances
    masks = torch.from_numpy(truth.masks.to_ndarray())
    prediction = InstanceData(bboxes=truth.bboxes.tensor, labels=truth.labels)
    prediction.masks, prediction.scores = masks, torch.ones(len(masks))
    ignored = sample.ignored_instances
    return {**sample.to_dict(), "pred_instances": prediction.to_dict()} | dict(
        ignored_instances=ignored
    )


@pytest.mark.parametrize("file", [COCO, MASK])
def test_every_head_gets_its_classes(file, detection, tmp_path):
    cfg = fitted(file, coco_options(detection), tmp_path)
    heads = cfg.model.roi_head.bbox_head
    heads = heads if isinstance(heads, list) else [heads]
    numbers = [head.num_classes for head in (*heads, cfg.model.roi_head.mask_head)]
    assert set(numbers) == {2}
    assert "num_classes" not in cfg.model.rpn_head
    assert cfg.auto_scale_lr.enable
    assert cfg.default_hooks.checkpoint.save_best == "coco/bbox_mAP"


def test_schedules_keep_their_shape(detection, segmentation, tmp_path):
    det = fitted(COCO, coco_options(detection), tmp_path / "a", 12)
    assert det.train_cfg.max_epochs == 12
    warmup, steps = det.param_scheduler
    assert (steps.milestones, steps.end) == ([9, 11], 12)  # 27 and 33 of 36
    assert warmup.end == round(0.1 * 12 * 3)  # five images to train on, two a step
    seg = fitted(ADE, folder_options(segmentation), tmp_path / "b", 100)
    assert seg.train_cfg.max_iters == 200  # four images to train on, two a step
    assert seg.train_cfg.val_interval == 10
    assert seg.default_hooks.checkpoint.interval == 10
    warmup, poly = seg.param_scheduler
    assert (warmup.end, poly.begin, poly.end) == (2, 2, 200)  # 1500 of 160000
    # A warm-up of one step would keep its low rate for the whole run.
    short = fitted(COCO, coco_options(detection), tmp_path / "d", 3)
    assert (short.param_scheduler[0].end, short.param_scheduler[0].start_factor) == (
        *(1, 1.0),
    )
    sized = fitted(COCO, coco_options(detection), tmp_path / "c", None)
    assert sized.train_cfg.max_epochs == 300
    assert sized.train_cfg.val_interval == 15


def folder_options(root, **more):
    named = dict(train_images=root / "images", train_labels=root / "labels")
    named = {**named, "color_map": root / "colors.txt", **more}
    return Options(**{key: str(value) for key, value in named.items()})


def test_label_maps_reach_mmseg(segmentation, tmp_path):
    cfg = fitted(ADE, folder_options(segmentation), tmp_path)
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes
    assert cfg.model.decode_head.num_classes == 3
    assert "LoadAnnotations" not in str(cfg.tta_pipeline)
    with DefaultScope.overwrite_default_scope("mmseg"):
        dataset = DATASETS.build(cfg.val_dataloader.dataset)
        assert dataset.metainfo["classes"] == tuple(COLORS)
        sample = dataset[0]["data_samples"]
    number = int(re.search(r"Bild (\d)", sample.img_path)[1])
    assert (sample.gt_sem_seg.data[0].numpy() == label_array(number)).all()


def test_reduce_zero_label(tmp_path):
    write_label_maps(tmp_path, 3)
    data = folder_options(tmp_path, color_map="")
    data.reduce_zero_label = True
    cfg = fitted(ADE, data, tmp_path / "run")
    assert cfg.model.decode_head.num_classes == 2
    with DefaultScope.overwrite_default_scope("mmseg"):
        sample = DATASETS.build(cfg.val_dataloader.dataset)[0]["data_samples"]
    labels = sample.gt_sem_seg.data[0].numpy()
    assert np.unique(labels).tolist() == [0, 1, 255]


def test_the_drawn_split_is_seeded_and_complete(detection, tmp_path):
    train, val = examine(coco_options(detection))
    again = examine(coco_options(detection))
    assert [train.files, val.files] == [split.files for split in again]
    other = examine(coco_options(detection), seed=3)
    assert [train.files, val.files] != [split.files for split in other]
    assert set(train.files).isdisjoint(val.files)
    assert len(train.files) + len(val.files) == 6
    val.write(tmp_path / "val.json")
    written = json.loads((tmp_path / "val.json").read_text("utf-8"))
    ids = {image["id"] for image in written["images"]}
    assert {a["image_id"] for a in written["annotations"]} <= ids


def test_training_keeps_every_class(tmp_path):
    """Of ten images, each with a class that no other has, few can be held out."""
    for i in range(10):
        photograph(tmp_path / f"images/{i}.jpg", i)
    content = dict(
        images=[dict(id=i, file_name=f"{i}.jpg") for i in range(10)],
        annotations=[box(i, i, i) for i in range(10)]
        + [box(10 + i, i, 10) for i in range(10)],
        categories=[dict(id=i, name=str(i)) for i in range(11)],
    )
    split = coco_check.examine(content, tmp_path / "images", "train")
    for seed in range(5):
        train, val = draw_split(split, seed)
        assert len(val.files) >= 1
        trained = {label for counter in train.objects for label in counter}
        missing = {label for counter in val.objects for label in counter} - trained
        assert len(missing) <= 1  # of the one image that must be held out


def test_images_in_both_splits_are_named(detection, tmp_path):
    (tmp_path / "copy.jpg").write_bytes(
        (detection / "images/sub folder/0.jpg").read_bytes()
    )
    photograph(tmp_path / "other.jpg", 99)
    content = dict(
        images=[dict(id=1, file_name="copy.jpg"), dict(id=2, file_name="other.jpg")],
        annotations=[box(1, 1)],
        categories=[dict(id=1, name="ant <b>"), dict(id=7, name="Käfer")],
    )
    save(content, tmp_path / "val.json")
    _, val = examine(
        coco_options(detection, val_json=tmp_path / "val.json", val_images=tmp_path)
    )
    assert dict(val.problems)[IN_BOTH] == ["copy.jpg"]


def test_splits_of_one_folder_do_not_miss_the_images_of_the_other(tmp_path):
    content = coco(tmp_path / "images")
    (tmp_path / "images/more.jpg").write_bytes(
        photograph(tmp_path / "one.jpg", 7).read_bytes()
    )
    ids = {image["id"]: number for number, image in enumerate(content["images"])}
    for split, rest in (("train", 0), ("val", 1)):
        chosen = dict(
            content,
            images=[i for i in content["images"] if ids[i["id"]] % 2 == rest],
            annotations=[
                a for a in content["annotations"] if ids[a["image_id"]] % 2 == rest
            ],
        )
        save(chosen, tmp_path / f"{split}.json")
    splits = examine(
        Options(
            train_json=str(tmp_path / "train.json"),
            val_json=str(tmp_path / "val.json"),
            train_images=str(tmp_path / "images"),
            val_images=str(tmp_path / "images"),
        )
    )
    for split in splits:
        assert dict(split.problems)[coco_check.NOT_LISTED] == ["more.jpg"]


def test_detection_trains_without_masks_and_goes_on(tool, detection, tmp_path):
    """The data has boxes only, a crowd, an image without objects, ids with gaps."""
    content = json.loads((detection / "train.json").read_text("utf-8"))
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    run = tmp_path / "run"
    data = [
        *("--train-json", save(content, tmp_path / "boxes.json")),
        *("--train-images", detection / "images", "--work-dir", run),
    ]
    all_boxes = "model.test_cfg.rcnn.score_thr=0."  # else two steps predict nothing
    done = tool("train", DET, *data, "--epochs", 1, *options(all_boxes))
    assert done.code == 0
    assert "the data has no masks: the mask head is left out" in done.out
    assert "train: images: 5, classes: 2" in done.out
    assert "coco/bbox_mAP: " in done.out
    assert "segm_mAP" not in done.out
    assert "epochs: 1, steps an epoch: 2 (5 images, 4 a step)" in done.out
    meta = torch.load(run / "epoch_1.pth", weights_only=False)["meta"]["dataset_meta"]
    assert meta["classes"] == ("ant <b>", "Käfer")
    assert list(meta["category_ids"]) == [3, 7]
    # The file changes, but a run that is resumed keeps the splits with which it began.
    before = (run / "data/train.json").read_text()
    content["images"].pop()
    save(content, tmp_path / "boxes.json")
    done = tool("train", DET, *data, "--epochs", 2, "--resume", *options())
    assert done.code == 0
    assert "the run keeps the splits with which it began" in done.out
    # The schedule has become as long as the run: without that, the rate would be 0.
    assert "train_cfg.max_epochs is 2 and was 1" in done.out
    assert "the next learning rate stays 0.002" in done.out
    assert (run / "data/train.json").read_text() == before
    assert (run / "epoch_2.pth").is_file()
    # The run's own config and checkpoint need no more options.
    (file,) = run.glob("*.py")
    test = ("test", file, run / "epoch_2.pth", "--work-dir", tmp_path / "test")
    done = tool(*test, "--cfg-options", all_boxes)
    assert done.code == 0
    assert "coco/bbox_mAP" in done.out
    done = tool(
        *("predict", run / "epoch_2.pth", detection / "images/**/*.jpg"),
        *("--out", "out", "--cfg-options", "model.test_cfg.rcnn.score_thr=0."),
    )
    assert done.code == 0, done.err
    predictions = json.loads((tmp_path / "out/predictions.json").read_text())
    assert {prediction["category_id"] for prediction in predictions} <= {3, 7}
    images = json.loads((tmp_path / "out/images.json").read_text("utf-8"))
    assert images["categories"] == [
        dict(id=3, name="ant <b>"),
        dict(id=7, name="Käfer"),
    ]


def test_segmentation_trains_on_colours(tool, segmentation, tmp_path):
    run = tmp_path / "run"
    done = tool(
        *("train", SEG, "--work-dir", run, "--epochs", 1),
        *("--data", segmentation, "--color-map", segmentation / "colors.txt"),
        *options(),
    )
    assert done.code == 0
    assert "val: images: 1, classes: 3" in done.out
    assert re.search(r"\| +Käfer +\|", done.out)
    (file,) = run.glob("*.py")
    assert (run / "iter_1.pth").is_file()
    done = tool(
        *("test", file, run / "iter_1.pth", "--work-dir", tmp_path / "test", "--tta"),
    )
    assert done.code == 0
    assert "mIoU" in done.out
    done = tool("predict", run / "iter_1.pth", segmentation / "images", "--out", "out")
    assert done.code == 0, done.err
    labels = PIL.Image.open(tmp_path / "out/labels/Bild 0 ü.png")
    assert np.asarray(labels).max() < 3


def test_a_model_that_needs_masks(detection, tmp_path):
    (tmp_path / "solo.py").write_text(
        f"_base_ = '{MASK}'\nmodel = dict(_delete_=True, type='SOLO', num_classes=3)"
    )
    data = coco_options(detection)
    data.boxes_only = True
    with pytest.raises(InputError, match="its SOLO needs masks"):
        fitted(tmp_path / "solo.py", data, tmp_path / "run")


LAYOUTS = {
    "COCO": (
        ["annotations/instances_train2017.json", "annotations/instances_val2017.json"],
        ["train2017", "val2017"],
    ),
    "Roboflow": (
        ["train/_annotations.coco.json", "valid/_annotations.coco.json"],
        ["train", "valid"],
    ),
    "CVAT": (["annotations/instances_default.json"], ["images"]),
    "FiftyOne": (["train/labels.json", "val/labels.json"], ["train/data", "val/data"]),
    "shapes": (
        ["annotations/instances_train.json", "annotations/instances_val.json"],
        ["images/train", "images/val"],
    ),
    "one file": (["anything.json"], ["."]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_coco_files(tmp_path, layout):
    files, folders = LAYOUTS[layout]
    save({}, tmp_path / "annotations/captions_train2017.json")
    for i, (file, folder) in enumerate(zip(files, folders, strict=True)):
        photograph(tmp_path / folder / f"{i}.jpg")
        content = dict(images=[dict(id=1, file_name=f"{i}.jpg")])
        save(content, tmp_path / file)
    scope, paths = find_dataset(tmp_path)
    assert scope == "mmdet"
    assert list(paths) == ["train", "val"][: len(files)]
    for source, file, folder in zip(paths.values(), files, folders, strict=True):
        assert source.annotations == tmp_path / file
        assert source.images == tmp_path / folder


LABEL_LAYOUTS = {
    "ADE20K": [
        ("images/training", "annotations/training"),
        ("images/validation", "annotations/validation"),
    ],
    "splits outside": [("train/images", "train/masks"), ("val/images", "val/masks")],
    "no split": [("images", "labels")],
    "Pascal VOC": [("JPEGImages", "SegmentationClass")],
    "coco_tiny": [("train2017", "semantic/train2017"), ("val2017", "semantic/val2017")],
}


@pytest.mark.parametrize("layout", LABEL_LAYOUTS)
def test_layouts_of_label_maps(tmp_path, layout):
    for images, labels in LABEL_LAYOUTS[layout]:
        photograph(tmp_path / images / "a.jpg")
        save_labels(label_array(), tmp_path / labels / "a.png")
    scope, paths = find_dataset(tmp_path)
    assert scope == "mmseg"
    assert [
        (str(s.images.relative_to(tmp_path)), str(s.annotations.relative_to(tmp_path)))
        for s in paths.values()
    ] == LABEL_LAYOUTS[layout]


def test_several_files_for_one_split_are_refused(tmp_path):
    for name in ("train_a.json", "train_b.json"):
        save({}, tmp_path / name)
    with pytest.raises(InputError, match=r"2 files for train: train_a.json, train_b"):
        find_dataset(tmp_path)


def test_classes_of_the_command_line(tmp_path):
    write_label_maps(tmp_path, 3)
    data = folder_options(tmp_path, color_map="")
    data.classes = ["ground", "beetle", "ant", "wasp"]
    train, _ = examine(data)
    assert train.classes == ("ground", "beetle", "ant", "wasp")
    assert dict(train.problems) == {label_check.UNUSED: ["wasp"]}
    (tmp_path / "names.txt").write_text("ground\nbeetle\n\nant\n")
    data.classes = [str(tmp_path / "names.txt")]
    assert examine(data)[0].classes == ("ground", "beetle", "ant")
    data.classes = ["ground", "ground"]
    with pytest.raises(InputError, match="given twice"):
        examine(data)
    data.color_map = str(color_map(tmp_path / "colors.txt"))
    data.classes = ["a", "b"]
    with pytest.raises(InputError, match="both name the classes"):
        examine(data)


def test_a_config_without_heads(detection, tmp_path):
    cfg = load_config(str(DET), work_dir=str(tmp_path))
    cfg.model = Config(dict(type="X", data_preprocessor=dict(num_classes=3)))
    cfg.val_evaluator.metric = "bbox"
    with pytest.raises(InputError, match="its model has no num_classes"):
        prepare(cfg, coco_options(detection), 1)


@pytest.mark.skipif(not SHARED.exists(), reason="needs the samples of COCO")
def test_real_data(tool, tmp_path):
    """coco_tiny has no problems, as objects or as label maps."""
    data = SHARED / "data/coco_tiny"
    done = tool("inspect_data", "--data", data)
    assert done.code == 0
    assert "train: images: 80, classes: 80, objects: 699, crowd regions: 6" in done.out
    done = tool(
        *("inspect_data", "--train-images", data / "train2017"),
        *("--train-labels", data / "semantic/train2017"),
    )
    assert done.code == 0
    assert "classes: 81" in done.out
    assert "error" not in done.out + done.err
