"""COCO-O: convnext-dense test evaluates six domains in one run, on small data."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DATASETS, EVALUATOR, MODELS, DefaultScope
from mmengine.structures import InstanceData

from convnext_dense.config.options import load_config
from convnext_dense.errors import InputError

from ..helpers.paths import ROOT
from ..helpers.runs import NO_WORKERS

CONFIG = ROOT / "configs/det/cascade_mask_rcnn_convnext_xl_in22k_coco_o.py"
CLASSES = CocoDataset.METAINFO["classes"]
DOMAINS = ("sketch", "weather", "cartoon", "painting", "tattoo", "handmake")
CATEGORIES = [dict(id=i, name=n) for i, n in enumerate(CLASSES, 1)]
BOX = [8, 8, 16, 12]  # x, y, width, height


@pytest.fixture
def root(tmp_path):
    """Two images in each domain, with one person each; ids repeat in every domain."""
    for shift, domain in enumerate(DOMAINS):
        folder = tmp_path / "coco_o" / domain
        (folder / "val2017").mkdir(parents=True)
        (folder / "annotations").mkdir()
        coco = dict(images=[], annotations=[], categories=CATEGORIES)
        for number in (1, 2):
            name = f"{number:012d}.jpg"
            picture = np.full((64, 64, 3), 40 * shift, np.uint8)
            cv2.imwrite(str(folder / "val2017" / name), picture)
            box = [BOX[0] + 5 * shift, *BOX[1:]]
            coco["images"].append(dict(id=number, file_name=name, width=64, height=64))
            coco["annotations"].append(
                dict(
                    **dict(id=number, image_id=number, category_id=1, bbox=box),
                    **dict(area=box[2] * box[3], iscrowd=0),
                )
            )
        file = folder / "annotations/instances_val2017.json"
        file.write_text(json.dumps(coco))
    return tmp_path / "coco_o"


def prediction(image, boxes):
    x, y, w, h = np.array(boxes, float).reshape(-1, 4).T
    sample = DetDataSample(
        metainfo=dict(img_id=image["img_id"], ori_shape=(64, 64)),
    )
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor(np.stack([x, y, x + w, y + h], -1), dtype=torch.float32),
        scores=torch.ones(len(boxes)),
        labels=torch.zeros(len(boxes), dtype=torch.long),
    )
    return sample.to_dict()


def build(root):
    cfg = load_config(CONFIG, [f"data_root={root}"])
    with DefaultScope.overwrite_default_scope("mmdet"):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        evaluator = EVALUATOR.build(cfg.test_evaluator)
    evaluator.dataset_meta = dataset.metainfo
    return dataset, evaluator


def test_each_domain_is_scored_alone_and_averaged(root):
    """Detections with a known mAP in each domain."""
    dataset, evaluator = build(root)
    for index in range(len(dataset)):
        image, shift = dataset.get_data_info(index), index // 2
        boxes = [[BOX[0] + 5 * shift, *BOX[1:]]]
        detections = {
            "sketch": boxes,
            "weather": boxes,
            "cartoon": boxes,
            "painting": boxes if index % 2 else [[0, 40, 9, 9]],  # half are correct
            "tattoo": [BOX],  # correct in the first domain, wrong in this one
            "handmake": [],
        }[DOMAINS[shift]]
        evaluator.process([prediction(image, detections)])
    metrics = evaluator.evaluate(len(dataset))
    expected = dict.fromkeys(DOMAINS, 1.0) | dict(painting=0.252, tattoo=0, handmake=0)
    for domain, value in expected.items():
        score = metrics.get(f"{domain}/coco/bbox_mAP", 0)
        assert score == pytest.approx(value, abs=0.002), domain
    average = sum(metrics.get(f"{d}/coco/bbox_mAP", 0) for d in DOMAINS) / 6
    assert average == pytest.approx(0.54, abs=0.01)
    assert metrics["coco_o/average_mAP"] == pytest.approx(average)
    robustness = metrics["coco_o/effective_robustness"]
    assert robustness == pytest.approx(average - 0.45 * 0.552)


def test_a_domain_without_objects_is_named(root):
    file = root / "weather/annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "annotations": []}))
    dataset, evaluator = build(root)
    for index in range(len(dataset)):
        image, shift = dataset.get_data_info(index), index // 2
        evaluator.process([prediction(image, [[BOX[0] + 5 * shift, *BOX[1:]]])])
    with pytest.raises(InputError, match="weather has no annotated objects"):
        evaluator.evaluate(len(dataset))


def test_protocol_gives_the_papers_number():
    """The paper: 37.5 on average and 55.2 on COCO are 12.68 (rounded)."""
    assert 37.5 - 0.45 * Config.fromfile(CONFIG).test_evaluator.coco_box_map * 100 == (
        pytest.approx(12.68, abs=0.05)
    )


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    """The config with a small model, and a checkpoint of it."""
    folder = tmp_path_factory.mktemp("small")
    file = folder / "small.py"
    file.write_text(
        f"_base_ = {str(CONFIG)!r}\n"
        "model = dict(\n"
        "    backbone=dict(arch='atto', init_cfg=None),\n"
        "    neck=dict(in_channels=[40, 80, 160, 320]),\n"
        "    test_cfg=dict(rpn=dict(max_per_img=5), rcnn=dict(score_thr=0.0)))\n"
    )
    cfg = load_config(file, NARROW)
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / "small.pth")
    return file, folder / "small.pth"


@pytest.fixture
def small(small_model, tmp_path, root):
    options = ["--cfg-options", f"data_root={root}", *NO_WORKERS, *NARROW]
    return ["test", *small_model, "--work-dir", tmp_path / "run", *options]


NARROW = [f"model.roi_head.bbox_head.{i}.fc_out_channels=32" for i in range(3)]
SIZES = [
    f"test_dataloader.dataset.datasets.{i}.pipeline.1.scale=(64,64)" for i in range(6)
]


def test_one_run_prints_every_domain(tool, small):
    done = tool(*small, *SIZES)
    assert done.code == 0
    table = re.search(r"COCO-O, box mAP in percent\n((?:.*\n){8})", done.out)[1]
    rows = [line.split(maxsplit=1) for line in table.splitlines()]
    assert [row[1] for row in rows[:7]] == [*DOMAINS, "average"]
    values = [float(row[0]) for row in rows]
    assert values[6] == pytest.approx(sum(values[:6]) / 6, abs=0.01)
    assert rows[7][1] == "effective robustness over 55.2% on COCO"
    assert values[7] == pytest.approx(values[6] - 24.84, abs=0.01)


@pytest.mark.parametrize("gone", ["tattoo", "tattoo/annotations", "weather/val2017"])
def test_a_missing_domain_is_named(tool, small, root, gone):
    shutil.rmtree(root / gone)
    done = tool(*small)
    assert done.code == 2
    assert f"the test data is not there: CocoDataset expects {root}/{gone}" in done.err
    others = set(DOMAINS) - {gone.split("/")[0]}
    assert not any(domain in done.err for domain in others)


def test_an_empty_domain_is_named(tool, small, root):
    file = root / "cartoon/annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "images": [], "annotations": []}))
    done = tool(*small)
    assert done.code == 2
    assert f"the annotations for test: {file} has no images" in done.err


def test_tta_reaches_every_domain_and_out_is_refused(tool, small):
    done = tool(*small, "--out", "x.pkl")
    assert done.code == 2
    assert "--out does not work with an evaluator of several data sets" in done.err
    done = tool(*small[:5], "--tta", *small[5:], *SIZES)
    assert done.code == 0
    assert "average" in done.out
