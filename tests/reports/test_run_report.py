"""The page about a run has the right numbers, and is written whatever happened."""

import copy
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from markupsafe import escape
from mmdet.structures import DetDataSample
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData, PixelData
from mmengine.utils import ManagerMixin
from mmseg.structures import SegDataSample
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from convnext_dense.config.options import load_config
from convnext_dense.engine import runner as engine_runner
from convnext_dense.engine.runner import run
from convnext_dense.optim.layer_decay import Layer, layers_of
from convnext_dense.reports.run import curves, detection, figures, page, segmentation
from convnext_dense.reports.run.hook import RunReportHook
from convnext_dense.reports.run.results import best_and_worst
from convnext_dense.utils.masks import to_bitmap

from ..helpers.mmengine_state import forget_instances, logged
from ..helpers.runs import DET, SEG, options

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
HOSTILE = ("<b>disc</b>", "squäre & co", '"triangle"', "$x_1$", "<script>alert(1)")


# What was logged


def log(folder, name, rows):
    file = folder / name / "vis_data" / "scalars.json"
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))


def step(iteration, loss=1.0, **more):
    return dict(iter=iteration, step=iteration, loss=loss, lr=0.1, time=0.5, **more)


def test_a_later_start_replaces_what_it_did_again(tmp_path):
    log(tmp_path, "20260101_000000", [*map(step, (10, 20)), dict(mIoU=1.0, step=20)])
    again = [step(30, loss=2.0), step(40), dict(mIoU=2.0, step=40)]
    log(tmp_path, "20260102_000000", again)
    third = [step(35, loss=3.0), dict(mIoU=3.0, step=35)]
    log(tmp_path, "20260103_000000", third)
    read = curves.read(tmp_path)
    assert [(row["iter"], row["loss"]) for row in read.train] == [
        *((10, 1.0), (20, 1.0), (30, 2.0), (35, 3.0))
    ]
    assert [(v.iteration, v.metrics) for v in read.validations] == [
        *((20, {"mIoU": 1.0}), (35, {"mIoU": 3.0}))
    ]
    assert [tuple(session) for session in read.sessions] == [
        ("20260101_000000", 10, 20),
        ("20260102_000000", 30, 40),
        ("20260103_000000", 35, 35),
    ]


def test_a_start_from_nothing_replaces_all(tmp_path):
    log(tmp_path, "20260101_000000", [step(10), step(20)])
    log(tmp_path, "20260102_000000", [step(5)])
    log(tmp_path, "20260103_000000", [])  # a start that failed
    read = curves.read(tmp_path)
    assert [row["iter"] for row in read.train] == [5]
    assert [session.name for session in read.sessions] == ["20260102_000000"]


def test_damaged_lines_are_left_out_and_counted(tmp_path):
    rows = [
        step(10),
        "[1]",
        '{"iter": "x", "step": "x"}',
        "\x00\x00",
        step(20, loss=float("nan")),
        json.dumps(step(30))[:25],
    ]
    log(tmp_path, "20260101_000000", rows)
    read = curves.read(tmp_path)
    assert [row["iter"] for row in read.train] == [10, 20]
    assert read.unreadable == 4


def test_validations_are_placed_by_epoch_or_iteration(tmp_path):
    by_epoch = [step(10, epoch=1), dict(mAP=0.1, step=1), step(20, epoch=2)]
    log(tmp_path / "a", "1", [*by_epoch, dict(mAP=0.2, step=2)])
    log(tmp_path / "b", "1", [step(10), dict(mIoU=1, step=0)])  # log_metric_by_epoch
    log(tmp_path / "c", "1", [step(10), dict(mIoU=1, step=15)])
    log(tmp_path / "d", "1", [step(10), dict(time=1.0, data_time=0.1, step=10)])
    placed = {
        name: [tuple(v[:2]) for v in curves.read(tmp_path / name).validations]
        for name in "abcd"
    }
    assert placed == {
        "a": [(10, 1), (20, 2)],
        "b": [(10, None)],
        "c": [(15, None)],
        "d": [],
    }


@pytest.mark.parametrize(
    ("names", "save_best", "main"),
    [
        (["coco/bbox_mAP", "coco/segm_mAP"], None, "coco/bbox_mAP"),
        (["coco/bbox_mAP", "coco/segm_mAP"], "coco/segm_mAP", "coco/segm_mAP"),
        (["aAcc", "mIoU", "mAcc"], "auto", "mIoU"),
        (["score"], None, "score"),
        ([], None, None),
    ],
)
def test_main_metric(names, save_best, main):
    validations = [curves.Validation(1, None, dict.fromkeys(names, 1.0))]
    assert curves.main_metric(validations, save_best) == main
    assert curves.main_metric([], save_best) is None


# Detection


def boxes(*rows):
    return np.array(rows, float).reshape(-1, 4)


def truth(labels, at, crowd=None, masks=None):
    labels = np.array(labels, int)
    crowd = np.zeros(len(labels), bool) if crowd is None else np.array(crowd, bool)
    return dict(boxes=boxes(*at), labels=labels, crowd=crowd, masks=masks)


def prediction(labels, at, scores, masks=None):
    return dict(
        boxes=boxes(*at),
        labels=np.array(labels, int),
        scores=np.array(scores, float),
        masks=masks,
    )


@pytest.fixture(scope="module")
def scenes():
    """Truth and prediction of 12 images, 5 classes; none of class 4, some crowd."""
    rng = np.random.default_rng(0)
    truths, predictions = [], []
    for number in range(12):
        count = 0 if number == 3 else rng.integers(1, 7)
        at = np.concatenate(
            [rng.uniform(0, 60, (count, 2)), rng.uniform(8, 40, (count, 2))], 1
        )
        labels = rng.integers(0, 4, count)
        truths.append(truth(labels, at, rng.random(count) < 0.15))
        extra = 0 if number == 5 else 3
        some = np.concatenate([at + rng.normal(0, 1.5, at.shape), at[:extra] + 5])
        guessed = np.concatenate([labels, labels[:extra]])
        wrong = rng.random(len(guessed)) < 0.25
        guessed = np.where(wrong, rng.integers(0, 5, len(guessed)), guessed)
        predictions.append(prediction(guessed, some, rng.random(len(guessed))))
    return truths, predictions


def polygon(box):
    x, y, w, h = map(float, box)
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def encoded(box):
    return mask_api.merge(mask_api.frPyObjects(polygon(box), 120, 120))


def coco_file(truths, path):
    """Write a COCO file of the truths, with ids as annotation tools write them."""
    annotations = [
        dict(
            id=1000 + 100 * image + i,
            image_id=7 * image,
            category_id=10 * int(label) + 3,
            bbox=image_truth["boxes"][i].tolist(),
            area=float(image_truth["boxes"][i, 2:].prod()),
            iscrowd=int(image_truth["crowd"][i]),
            segmentation=polygon(image_truth["boxes"][i]),
        )
        for image, image_truth in enumerate(truths)
        for i, label in enumerate(image_truth["labels"])
    ]
    images = [dict(id=7 * i, height=120, width=120) for i in range(len(truths))]
    categories = [dict(id=10 * label + 3, name=str(label)) for label in range(5)]
    content = dict(
        info={}, images=images, annotations=annotations, categories=categories
    )
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_ap_of_each_class_is_pycocotools(scenes, tmp_path, iou_type):
    truths, predictions = ([dict(image) for image in side] for side in scenes)
    for image in (*truths, *predictions):
        image["masks"] = [polygon(box) for box in image["boxes"]]
    ours = detection.evaluate([(120, 120)] * 12, truths, predictions, 5, iou_type)

    coco_file(truths, tmp_path / "truth.json")
    coco = COCO(tmp_path / "truth.json")
    results = [
        dict(
            image_id=7 * image,
            category_id=10 * int(label) + 3,
            score=float(predicted["scores"][i]),
            **(
                dict(bbox=predicted["boxes"][i].tolist())
                if iou_type == "bbox"
                else dict(segmentation=encoded(predicted["boxes"][i]))
            ),
        )
        for image, predicted in enumerate(predictions)
        for i, label in enumerate(predicted["labels"])
    ]
    for label in range(5):
        theirs = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), iou_type)
        theirs.params.catIds = [10 * label + 3]
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
        got = [
            detection.average_precision(ours)[label],
            detection.average_precision(ours, 0)[label],
        ]
        if label == 4:
            assert np.isnan(got).all()  # no objects
            assert (theirs.stats[:2] == -1).all()
        else:
            assert got == pytest.approx(theirs.stats[:2].tolist())
            assert 0.05 < got[0] < 0.95


def test_precision_over_recall_by_hand():
    """Four objects; boxes by score: right, wrong, right, right."""
    at = [(40 * i, 0, 20, 20) for i in range(4)]
    guesses = [at[0], (300, 0, 20, 20), at[1], at[2]]
    ours = detection.evaluate(
        [(50, 400)],
        [truth([0] * 4, at)],
        [prediction([0] * 4, guesses, [0.9, 0.8, 0.7, 0.6])],
        1,
        "bbox",
    )
    precision = detection._precision(ours)[0, :, 0]
    # Recall 1/4 at precision 1, 3/4 at 3/4, no more; each at the best to its right.
    assert precision[:26].tolist() == pytest.approx([1.0] * 26)
    assert precision[26:76].tolist() == pytest.approx([0.75] * 50)
    assert precision[76:].tolist() == [0] * 25


def test_nothing_found_is_an_ap_of_zero():
    ours = detection.evaluate(
        [(50, 50)], [truth([0], [(1, 1, 9, 9)])], [prediction([], [], [])], 2, "bbox"
    )
    ap = detection.average_precision(ours)
    assert ap[0] == 0
    assert np.isnan(ap[1])
    assert [counts.tolist() for counts in detection.per_image(ours, 1)] == [
        *([0], [0], [1])
    ]


def test_confusion_by_hand():
    at = [(0, 0, 10, 10), (50, 0, 10, 10), (0, 50, 10, 10), (50, 50, 40, 40)]
    truths = [truth([0, 1, 1, 0], at, crowd=[0, 0, 0, 1])]
    guesses = [
        (0, (0, 0, 10, 10), 0.9),  # right
        (1, (0, 0, 10, 9), 0.8),  # the same object by another class
        (0, (50, 0, 10, 10), 0.7),  # wrong class
        (1, (0, 50, 10, 10), 0.2),  # right, but of a low score
        (1, (100, 0, 10, 10), 0.9),  # nothing there
        (0, (55, 55, 5, 5), 0.9),  # in the crowd
    ]
    labels, places, scores = zip(*guesses, strict=True)
    matrix = detection.confusion_matrix(truths, [prediction(labels, places, scores)], 2)
    assert matrix.tolist() == [[1, 1, 0], [1, 0, 2], [0, 1, 0]]


def test_confusion_is_that_of_mmdets_tool(scenes):
    """The tool's rule, object by object; without crowds, which it does not know."""
    truths = [dict(t, crowd=np.zeros_like(t["crowd"])) for t in scenes[0]]
    expected = np.zeros((6, 6), int)
    for objects, guess in zip(truths, scenes[1], strict=True):
        met = np.zeros(len(objects["labels"]), bool)
        for box, label, score in zip(
            guess["boxes"], guess["labels"], guess["scores"], strict=True
        ):
            if score < 0.3:
                continue
            alone = True
            for i, other in enumerate(objects["boxes"]):
                low = np.maximum(box[:2], other[:2])
                high = np.minimum(box[:2] + box[2:], other[:2] + other[2:])
                shared = np.prod(np.maximum(high - low, 0))
                if shared / (box[2:].prod() + other[2:].prod() - shared) >= 0.5:
                    alone = False
                    expected[objects["labels"][i], label] += 1
                    met[i] |= objects["labels"][i] == label
            expected[5, label] += alone
        for label in objects["labels"][~met]:
            expected[label, 5] += 1
    got = detection.confusion_matrix(truths, scenes[1], 5)
    assert got.tolist() == expected.tolist()
    assert (expected.sum(0)[:4] > 0).all()
    assert expected[5].sum() > 0


def test_found_wrong_and_missed_of_each_image():
    at = [(0, 0, 10, 10), (50, 0, 10, 10), (50, 50, 40, 40)]
    truths = [truth([0, 1, 0], at, crowd=[0, 0, 1]), truth([], [])]
    predictions = [
        prediction([0, 0, 1, 0], [at[0], at[0], at[1], at[2]], [0.9, 0.8, 0.1, 0.9]),
        prediction([1], [at[0]], [0.5]),
    ]
    ours = detection.evaluate([(100, 100)] * 2, truths, predictions, 2, "bbox")
    counts = [counts.tolist() for counts in detection.per_image(ours, 2)]
    assert counts == [[1, 0], [1, 1], [1, 0]]  # hits, false, missed


def test_masks_of_every_notation():
    square = np.zeros((20, 30), np.uint8)
    square[5:10, 10:20] = 1
    counts = [10 * 20 + 5] + [5, 15] * 9 + [5, 10 * 20 + 10 - 0]
    counts[-1] = 20 * 30 - sum(counts[:-1])
    compressed = detection.encode_mask_results(square[None])[0]
    polygon = [[10, 5, 20, 5, 20, 10, 10, 10]]
    for mask in (polygon, dict(counts=counts, size=[20, 30]), compressed):
        assert np.array_equal(to_bitmap(mask, 20, 30), square.astype(bool))


def test_masks_that_cocometric_encoded_are_taken_over():
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, 2:5, 2:5] = True
    instances = InstanceData(
        bboxes=torch.tensor([[2.0, 2, 5, 5]]),
        labels=torch.tensor([0]),
        scores=torch.tensor([0.5]),
        masks=masks,
    )
    samples = []
    for number in (4, 5):
        meta = dict(img_id=number, img_path=f"{number}.jpg", ori_shape=(8, 8))
        sample = DetDataSample(metainfo=meta, pred_instances=instances.clone())
        samples.append(sample)
    metric = detection.CocoMetric()
    metric.results = [({}, dict(img_id=i, masks=[f"rle {i}"])) for i in (3, 4, 5)]
    evaluator = SimpleNamespace(metrics=[metric])
    taken = detection.records(samples, evaluator)
    assert [record["masks"] for record in taken] == [["rle 4"], ["rle 5"]]
    assert taken[0]["boxes"].tolist() == [[2, 2, 3, 3]]

    metric.results[-1][1]["img_id"] = 6  # of other images: encoded here
    (encoded,) = detection.records(samples[:1], evaluator)[0]["masks"]
    assert np.array_equal(to_bitmap(encoded, 8, 8), masks[0].numpy())


class Boxes:
    """A data set of boxes without masks, its images on disk."""

    def __init__(self, folder):
        self.metainfo = dict(classes=("a", "b"))
        self.paths = [str(folder / f"{i}.png") for i in range(3)]
        for path in self.paths:
            cv2.imwrite(path, np.full((60, 80, 3), 90, np.uint8))

    def __len__(self):
        return len(self.paths)

    def get_data_info(self, index):
        instance = dict(bbox=[10, 10, 40, 30], bbox_label=1, ignore_flag=0)
        return dict(img_path=self.paths[index], instances=[instance] * (index < 2))


def test_boxes_alone(tmp_path):
    """The first is found, the second is not, the third has nothing."""
    dataset = Boxes(tmp_path)
    made = [
        dict(predicted, path=path, shape=(60, 80))
        for path, predicted in zip(
            dataset.paths,
            [prediction([1], [(10, 10, 30, 20)], [0.9]), *[prediction([], [], [])] * 2],
            strict=True,
        )
    ]
    got = detection.summarize(made, dataset)
    assert got.columns == ("box AP", "box AP50", "objects")
    assert np.isnan(got.per_class[0, :2]).all()
    half = 51 / 101  # recall 0 to 0.5 at precision 1
    assert got.per_class[1].tolist() == pytest.approx([half, half, 2])
    assert [picture.caption for picture in (*got.best, *got.worst)] == [
        "F1 1.00: 1 found, 0 missed, 0 wrong",
        "F1 0.00: 0 found, 1 missed, 0 wrong",
    ]
    (hit,), (miss,) = got.best, got.worst
    assert (hit.truth != 90).any()
    assert (hit.prediction != 90).any()
    assert (miss.truth != 90).any()
    assert (miss.prediction == 90).all()


# Segmentation


class Labels:
    """A data set of label maps, its images on disk."""

    def __init__(self, folder, truths, classes):
        self.metainfo = dict(classes=classes)
        self.truths = truths
        self.paths = [str(folder / f"{i}.png") for i in range(len(truths))]
        for path, truth in zip(self.paths, truths, strict=True):
            cv2.imwrite(path, np.zeros((*truth.shape, 3), np.uint8))

    def __len__(self):
        return len(self.truths)

    def get_data_info(self, index):
        return dict(img_path=self.paths[index])

    def __getitem__(self, index):
        data = torch.from_numpy(self.truths[index][None])
        sample = SegDataSample(gt_sem_seg=PixelData(data=data))
        sample.set_metainfo(dict(img_path=self.paths[index]))
        return dict(data_samples=sample)


def test_segmentation_by_brute_force(tmp_path):
    rng = np.random.default_rng(0)
    truths = [rng.choice([0, 1, 2, 255], (20, 30)) for _ in range(5)]
    truths.append(np.full((20, 30), 255))  # nothing to judge
    predicted = [np.where(rng.random(t.shape) < 0.6, t % 5, 1) % 4 for t in truths]
    classes = ("a", "b", "c", "never", "nowhere")
    dataset = Labels(tmp_path, truths, classes)
    samples = []
    for index, labels in enumerate(predicted):
        sample = dataset[index]["data_samples"]
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(labels[None]))
        samples.append(sample)
    evaluator = SimpleNamespace(
        metrics=[SimpleNamespace(ignore_index=255)], dataset_meta=dataset.metainfo
    )
    records = segmentation.records(samples, evaluator)
    got = segmentation.summarize(records, dataset)

    def scores(truth, prediction):
        for label in range(5):
            both = ((truth == label) & (prediction == label) & (truth != 255)).sum()
            either = ((truth == label) | (prediction == label)) & (truth != 255)
            pixels = (truth == label).sum()
            yield (
                100 * both / either.sum() if either.sum() else np.nan,
                100 * both / pixels if pixels else np.nan,
                100 * pixels / (truth != 255).sum(),
            )

    whole = np.stack(truths), np.stack(predicted)
    assert np.allclose(got.per_class, list(scores(*whole)), equal_nan=True)
    assert np.isnan(got.per_class[4, :2]).all()
    pairs = [
        [((whole[0] == t) & (whole[1] == p)).sum() for p in range(5)] for t in range(5)
    ]
    assert got.matrix.tolist() == pairs

    means = [np.nanmean([s[0] for s in scores(*p)]) for p in zip(*whole, strict=True)]
    order = np.argsort(means[:5])[::-1]
    shown = [*got.best, *got.worst[::-1]]
    assert [picture.name for picture in shown] == [f"{i}.png" for i in order]
    assert [picture.caption for picture in shown] == [
        f"mIoU {means[i]:.1f}" for i in order
    ]


def test_a_picture_that_is_gone_is_counted(tmp_path):
    truths = [np.zeros((8, 8), int)] * 3
    dataset = Labels(tmp_path, truths, ("a", "b"))
    evaluator = SimpleNamespace(metrics=[object()], dataset_meta=dataset.metainfo)
    samples = [dataset[i]["data_samples"] for i in range(3)]
    for sample in samples:
        sample.pred_sem_seg = sample.gt_sem_seg
    (tmp_path / "1.png").unlink()
    (tmp_path / "2.png").write_bytes(b"no picture")
    got = segmentation.summarize(segmentation.records(samples, evaluator), dataset)
    assert got.unreadable == 2
    assert [picture.name for picture in (*got.best, *got.worst)] == ["0.png"]


def test_no_image_is_among_the_best_and_the_worst():
    for count in range(20):
        best, worst, _ = best_and_worst(list(range(count)), lambda n: n + 1)
        assert not set(best) & set(worst)
        assert len(best) + len(worst) == min(count, 12)
        assert best == sorted(best, reverse=True)
        assert worst == sorted(worst)


# The page


def test_many_points_are_smoothed_around_nan():
    rows = [step(i + 1, loss=2.0 + i / 1000 + (i % 3 - 1) / 5) for i in range(2000)]
    rows[300]["loss"] = 1e6
    for row in rows[700:720]:
        row["loss"] = float("nan")
    (figure,) = figures.training(rows)
    (axes,) = figure.axes
    faint, line = axes.lines
    assert len(line.get_xdata()) <= 1000
    assert np.nanmax(faint.get_ydata()) == 1e6
    assert line.get_ydata() == pytest.approx(np.linspace(2, 4, 1000), abs=0.05)
    assert axes.get_ylim()[1] < 6  # the spike itself is cut off


def test_learning_rate_has_a_line_for_each_layer():
    layers = [Layer(i, 0.5 ** (2 - i), 1, (f"stages.{i}",)) for i in range(3)]
    rows = [dict(iter=i, lr=0.25 * i, base_lr=float(i)) for i in (1, 2)]
    (axes,) = figures.learning_rate(rows, layers).axes
    assert [line.get_ydata().tolist() for line in axes.lines] == [
        *([0.25, 0.5], [0.5, 1.0], [1.0, 2.0])
    ]
    (axes,) = figures.learning_rate(rows, None).axes
    assert len(axes.lines) == 1


# Whole runs


def train(file, work_dir, data_root, *more, change=None):
    forget_instances(ManagerMixin)
    cfg = load_config(
        str(file), [*options(f"data_root={data_root}", *more)[1:]], str(work_dir)
    )
    if change:
        change(cfg)
    with logged() as messages:
        return run(cfg, "train"), messages


@pytest.fixture(scope="module")
def det_run(shapes_root, tmp_path_factory):
    """A step of a detector whose classes have hostile names."""
    folder = tmp_path_factory.mktemp("det")
    for split in ("train", "val"):
        file = shapes_root / f"annotations/instances_{split}.json"
        content = json.loads(file.read_text())
        for category, name in zip(content["categories"], HOSTILE, strict=True):
            category["name"] = name
        (folder / f"{split}.json").write_text(json.dumps(content))

    def rename(cfg):
        for split in ("train", "val"):
            dataset = cfg[f"{split}_dataloader"].dataset
            dataset.ann_file = str(folder / f"{split}.json")
            dataset.metainfo = dict(classes=HOSTILE)
        cfg.val_evaluator.ann_file = str(folder / "val.json")

    train(
        *(DET, folder / "run", shapes_root, "train_dataloader.batch_size=2"),
        *("train_dataloader.dataset.indices=2", "train_cfg.max_epochs=1"),
        *("train_cfg.val_interval=1", "model.test_cfg.rcnn.score_thr=0."),
        change=rename,
    )
    return folder / "run"


@pytest.fixture(scope="module")
def seg_run(shapes_root, tmp_path_factory):
    """Two steps of a segmentor with layer decay, and its Runner."""
    folder = tmp_path_factory.mktemp("seg") / "run"
    runner, _ = train(
        *(SEG, folder, shapes_root, "train_dataloader.batch_size=2"),
        *("train_cfg.max_iters=2", "train_cfg.val_interval=2"),
        *("default_hooks.checkpoint.interval=2", "default_hooks.logger.interval=1"),
        "optim_wrapper.constructor=LayerDecayOptimWrapperConstructor",
        "optim_wrapper.paramwise_cfg.decay_rate=0.5",
    )
    return folder, runner


def all_classes(text):
    """The numbers in the row of all classes."""
    row = re.search(r"<td>all classes</td>(.*?)</tr>", text, re.DOTALL)[1]
    return [float(number) for number in re.findall(r"<td>([\d.]+)</td>", row)]


def last_metrics(run):
    return curves.read(run).validations[-1].metrics


def test_detection_ends_with_a_page(det_run):
    text = (det_run / "report.html").read_text()
    metrics = last_metrics(det_run)
    names = ("bbox_mAP", "bbox_mAP_50", "segm_mAP", "segm_mAP_50")
    expected = [metrics[f"coco/{name}"] for name in names]
    assert all_classes(text)[:4] == pytest.approx(expected, abs=1.1e-3)
    assert "The last validation, epoch 1." in text
    assert "1 of 1</b>epochs" in text
    for name in HOSTILE:
        assert text.count(f"<td>{escape(name)}</td>") == 1
    assert not re.search("<b>disc|<script", text)
    assert len(re.findall(r"F1 [\d.]+: \d+ found, ", text)) == 3
    assert "<td>GCC</td>" in text  # of the run's log


def test_segmentation_ends_with_a_page(seg_run):
    run, _ = seg_run
    text = (run / "report.html").read_text()
    metrics = last_metrics(run)
    expected = [metrics["mIoU"], metrics["mAcc"], 100]
    assert all_classes(text) == pytest.approx(expected, abs=0.051)
    assert "The last validation, iteration 2." in text
    assert "Learning rate of each layer" in text
    assert text.count(" · mIoU ") == 3


def test_layers_learn_at_the_rates_shown(seg_run):
    """The rates drawn are those that the schedulers set for every group."""
    wrapper = seg_run[1].optim_wrapper
    rows = [dict(iter=2, base_lr=wrapper.base_param_settings["lr"], lr=0.0)]
    groups = wrapper.optimizer.param_groups
    layers = layers_of(groups)
    (axes,) = figures.learning_rate(rows, layers).axes
    drawn = {line.get_label(): line.get_ydata()[0] for line in axes.lines}
    actual = {group["layer"]: group["lr"] for group in groups}
    assert len(actual) == 7
    assert {int(label.split(":")[0]): lr for label, lr in drawn.items()} == (
        pytest.approx(actual)
    )


def test_tool_makes_the_same_page_again(tool, seg_run):
    run, _ = seg_run
    before = (run / "report.html").read_text()
    names = sorted(run.rglob("*"))
    done = tool("report", run, "--out", "again.html")
    assert done.code == 0
    text = Path("again.html").read_text()
    assert all_classes(text) == all_classes(before)
    captions = r"<figcaption>.*</figcaption>"
    assert re.findall(captions, text) == re.findall(captions, before)
    assert "iter_2.pth, evaluated again." in text
    assert sorted(run.rglob("*")) == names  # nothing else is written


def test_tool_reports_what_is_left_of_a_run(tool, seg_run, tmp_path):
    """Curves and the reason, where it cannot be evaluated."""
    run = tmp_path / "run"
    shutil.copytree(seg_run[0], run)
    cfg = next(run.glob("*.py"))

    whole = cfg.read_text()
    gone = whole.replace("ShapesSegmentation", "BaseSegDataset")  # not drawn again
    cfg.write_text(re.sub(r"data_root='[^']*'", "data_root='gone'", gone))
    done = tool("report", run)
    assert done.code == 0
    text = (run / "report.html").read_text()
    assert "could not be evaluated: the val data is not there" in text
    assert "Learning rate of each layer" in text
    assert "<h2>Confusion" not in text

    (run / "report.html").unlink()
    done = tool("report", run, "--cfg-options", "data_root=nowhere")
    assert (done.code, (run / "report.html").exists()) == (2, False)
    assert "the val data is not there" in done.err
    done = tool("report", run, "--checkpoint", "nothing.pth")
    assert done.code == 2
    assert "no checkpoint at nothing.pth" in done.err

    cfg.write_text(whole)
    for file in run.glob("*.pth"):
        file.unlink()
    assert tool("report", run).code == 0
    assert "The run left no checkpoint." in (run / "report.html").read_text()

    shutil.rmtree(next(run.glob("*/vis_data")))
    done = tool("report", run)
    assert done.code == 2
    assert "has no training log and no checkpoint" in done.err
    cfg.unlink()
    done = tool("report", run)
    assert done.code == 2
    assert "is not the work dir of a run: it has no config" in done.err
    done = tool("report", tmp_path / "nothing")
    assert done.code == 2
    assert "no folder" in done.err


def test_trouble_is_a_warning_and_a_word_on_the_page(seg_run, monkeypatch, tmp_path):
    runner = seg_run[1]
    monkeypatch.setattr(runner, "_work_dir", str(tmp_path))
    hook = RunReportHook()
    with logged() as messages:
        monkeypatch.setattr(runner, "logger", MMLogger.get_current_instance())
        hook.before_val_epoch(runner)
        for index in range(3):
            hook.after_val_iter(runner, index, None, [SegDataSample()])
        hook.after_train(runner)
    assert sum("will have no predictions: AttributeError" in m for m in messages) == 1
    text = (tmp_path / "report.html").read_text()
    assert "The predictions could not be read: AttributeError" in text

    (tmp_path / "report.html").unlink()
    monkeypatch.setattr(page, "write", lambda *_: 1 / 0)
    with logged() as messages:
        hook.after_train(runner)
    message = messages[-1]
    assert "could not be written: ZeroDivisionError" in message
    assert f"convnext-dense report {tmp_path}" in message


def test_a_start_with_nothing_left_keeps_the_page(seg_run, monkeypatch, tmp_path):
    runner, hook = seg_run[1], RunReportHook()
    monkeypatch.setattr(runner, "_work_dir", str(tmp_path))
    (tmp_path / "report.html").write_text("the page")
    with logged() as messages:
        monkeypatch.setattr(runner, "logger", MMLogger.get_current_instance())
        hook.after_train(runner)
    assert messages == ["training ended after 2 of 2 iterations"]
    assert (tmp_path / "report.html").read_text() == "the page"
    written = []
    monkeypatch.setattr(hook, "results", lambda *_: "results")
    monkeypatch.setattr(hook, "_write", lambda *_: written.append("page"))
    hook.after_train(runner)
    assert not written
    hook.before_train_iter(runner, 0)
    hook.after_train(runner)
    assert written == ["page"]


def test_only_one_hook_writes_the_page():
    cfg = SimpleNamespace(work_dir="x", get=lambda *_: False)
    for hooks in ([], [RunReportHook()]):
        runner = SimpleNamespace(
            hooks=hooks,
            train_loop=None,
            param_schedulers=[],
            register_hook=lambda hook, priority=None, hooks=hooks: hooks.append(hook),
            train=lambda: None,
            test=lambda: None,
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                engine_runner, "build_runner", lambda *_, runner=runner: runner
            )
            run(cfg, "train")
        assert sum(isinstance(hook, RunReportHook) for hook in hooks) == 1


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_opens_in_a_browser_without_network(det_run, tmp_path):
    file = det_run / "report.html"
    text = file.read_text()
    outside = re.findall(r"""(?:src|href|url)\s*[=(]\s*(?!["']?data:)(\S{9})""", text)
    assert outside == []
    assert "@import" not in text

    def browse(*command):
        flags = (
            *("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path}/u"),
        )
        done = subprocess.run(
            [CHROMIUM, *flags, *command, file.as_uri()],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        assert "CONSOLE" not in done.stderr
        return done.stdout

    dom = browse("--dump-dom")
    assert dom.count("<img ") == text.count("<img ") == 2 + 6  # figures, pictures
    assert dom.count("<script") == 0
    browse(f"--screenshot={tmp_path}/page.png", "--window-size=1200,5000")
    shot = cv2.imread(str(tmp_path / "page.png"))
    assert shot.shape[:2] == (5000, 1200)
    # Pictures are coloured; the lower ones too.
    colored = (shot.max(2).astype(int) - shot.min(2) > 60).reshape(50, -1).mean(1)
    assert (colored > 0.002).sum() > 7
