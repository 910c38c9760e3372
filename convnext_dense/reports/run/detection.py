"""Detection: AP of each class, precision over recall, which class is taken for which.

Truth is the data set's own, at the images' own size, whatever the pipeline
does with annotations.
"""

import contextlib
import io
from collections.abc import Sequence

import numpy as np
import torch
from mmdet.evaluation import CocoMetric
from mmdet.structures import DetDataSample
from mmdet.structures.mask import encode_mask_results
from mmengine.dataset import BaseDataset
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement, InstanceData
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..drawing import Drawer
from .examples import Findings, Picture, best_and_worst, by_path, picture

SCORE_THR = 0.3  # a box of a lower score is no claim
IOU_THR = 0.5
BACKGROUND = "background"
MATRIX_ABOUT = (
    f"Objects by boxes of score {SCORE_THR} and above, as mmdet's tool counts: a box "
    f"counts for every object it overlaps by IoU {IOU_THR}. The last column is objects "
    "that no box of their class found, the last row boxes where there is no object."
)


def records(samples: Sequence[BaseDataElement], evaluator: Evaluator) -> list[dict]:
    """What the page needs of each sample's ``pred_instances``; masks as RLE."""
    encoded = _encoded_by_metric(samples, evaluator)
    return [_record(*pair) for pair in zip(samples, encoded, strict=True)]


def _encoded_by_metric(samples, evaluator) -> list:
    """The masks that CocoMetric has just encoded, which takes its time."""
    for metric in evaluator.metrics:
        if isinstance(metric, CocoMetric):
            last = [found for _, found in metric.results[-len(samples) :]]
            if [f["img_id"] for f in last] == [s.img_id for s in samples]:
                return [found.get("masks") for found in last]
    return [None] * len(samples)


def _record(sample: BaseDataElement, masks: list | None) -> dict:
    found = sample.pred_instances
    if masks is None and "masks" in found:
        masks = encode_mask_results(np.asarray(torch.as_tensor(found.masks).cpu()))
    return dict(
        path=sample.img_path,
        shape=tuple(sample.ori_shape[:2]),
        boxes=_xywh(found.bboxes.cpu().numpy()),
        labels=found.labels.cpu().numpy(),
        scores=found.scores.cpu().numpy().astype(float),
        masks=masks,
    )


def _xywh(corners: np.ndarray) -> np.ndarray:
    corners = corners.reshape(-1, 4).astype(float)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)


def findings(made: list[dict], dataset: BaseDataset) -> Findings:
    """
    Args:
        made: the ``records`` of one validation.
        dataset: that they are of.
    """
    classes = tuple(dataset.metainfo["classes"])
    indices = by_path(dataset)
    truths = [
        _truth(dataset.get_data_info(indices[record["path"]])["instances"])
        for record in made
    ]
    shapes = [record["shape"] for record in made]
    with_masks = all(one["masks"] is not None for one in (*made, *truths))
    box = evaluate(shapes, truths, made, len(classes), "bbox")
    columns = {"box AP": average_precision(box), "box AP50": average_precision(box, 0)}
    if with_masks:
        mask = evaluate(shapes, truths, made, len(classes), "segm")
        columns["mask AP"] = average_precision(mask)
        columns["mask AP50"] = average_precision(mask, 0)
    labels = np.concatenate([t["labels"][~t["crowd"]] for t in truths])
    columns["objects"] = np.bincount(labels, minlength=len(classes))

    hits, false, missed = per_image(box, len(made))
    errors = false + missed
    with np.errstate(invalid="ignore"):  # nothing there and nothing found
        measures = 2 * hits / (2 * hits + errors)
    known = np.flatnonzero(hits + errors).tolist()
    drawer = Drawer("mmdet", dataset.metainfo)

    def draw(number: int) -> Picture | None:
        caption = (
            f"F1 {measures[number]:.2f}: {hits[number]} found, "
            f"{missed[number]} missed, {false[number]} wrong"
        )
        sample = _sample(truths[number], made[number])
        return picture(drawer, made[number]["path"], caption, sample)

    best, worst, unreadable = best_and_worst(
        sorted(known, key=lambda n: (measures[n], hits[n] - errors[n])), draw
    )
    return Findings(
        classes=classes,
        columns=tuple(columns),
        per_class=np.stack(list(columns.values()), 1),
        matrix=confusion_matrix(truths, made, len(classes)),
        matrix_rows=(*classes, BACKGROUND),
        matrix_about=MATRIX_ABOUT,
        precision=_precision(box)[0].T,
        best=best,
        worst=worst,
        pictures_about=f"F1 of the boxes, at score {SCORE_THR} and IoU {IOU_THR}",
        unreadable=unreadable,
    )


def _truth(instances: list[dict]) -> dict:
    masks = [instance.get("mask") for instance in instances]
    return dict(
        boxes=_xywh(np.array([instance["bbox"] for instance in instances])),
        labels=np.array([i["bbox_label"] for i in instances], int),
        crowd=np.array([i.get("ignore_flag", 0) for i in instances], bool),
        masks=masks if all(masks) else None,
    )


def evaluate(
    shapes: Sequence[tuple[int, int]],
    truths: Sequence[dict],
    found: Sequence[dict],
    count: int,
    kind: str,
) -> COCOeval:
    """pycocotools' evaluation, for objects of all sizes and 100 boxes an image.

    Args:
        shapes: (height, width) of each image.
        truths, found: of each image ``boxes`` (N, 4) as x, y, width, height,
            ``labels`` (N,), ``masks`` (polygons or RLE); truths' ``crowd``, (N,)
            bool; the others' ``scores``, (N,).
        count: how many classes.
        kind: 'bbox' or 'segm'.
    """
    evaluation = COCOeval(
        _coco(shapes, truths, count, kind), _coco(shapes, found, count, kind), kind
    )
    settings = evaluation.params
    settings.areaRng, settings.areaRngLbl = [[0, 1e10]], ["all"]
    settings.maxDets = [100]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _coco(shapes, images, count: int, kind: str) -> COCO:
    annotations = []
    for number, one in enumerate(images):
        for i, label in enumerate(one["labels"]):
            box = one["boxes"][i]
            annotation = dict(
                id=len(annotations) + 1,  # 0 would mean no match
                image_id=number,
                category_id=int(label),
                bbox=box.tolist(),
                area=float(box[2] * box[3]),
                iscrowd=int(one["crowd"][i]) if "crowd" in one else 0,
            )
            if "scores" in one:
                annotation["score"] = float(one["scores"][i])
            if kind == "segm":
                annotation["segmentation"] = one["masks"][i]
            annotations.append(annotation)
    coco = COCO()
    coco.dataset = dict(
        images=[dict(id=i, height=h, width=w) for i, (h, w) in enumerate(shapes)],
        categories=[dict(id=label) for label in range(count)],
        annotations=annotations,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _precision(evaluation: COCOeval) -> np.ndarray:
    """(IoU thresholds, recalls, classes), NaN for classes without objects."""
    precision = evaluation.eval["precision"][..., 0, 0]
    return np.where(precision < 0, np.nan, precision)


def average_precision(evaluation: COCOeval, threshold=slice(None)) -> np.ndarray:
    """AP of each class, over all IoU thresholds or at one, by its index."""
    precision = _precision(evaluation)[threshold]
    return precision.reshape(-1, precision.shape[-1]).mean(0)


def per_image(
    evaluation: COCOeval, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Objects found, boxes that are wrong, objects missed; of each image."""
    hits, false, objects = np.zeros((3, count), int)
    for entry in filter(None, evaluation.evalImgs):
        image = entry["image_id"]
        counted = np.array(entry["dtScores"]) >= SCORE_THR
        counted &= ~entry["dtIgnore"][0].astype(bool)
        matched = entry["dtMatches"][0] > 0
        hits[image] += (counted & matched).sum()
        false[image] += (counted & ~matched).sum()
        objects[image] += (np.array(entry["gtIgnore"]) == 0).sum()
    return hits, false, objects - hits


def confusion_matrix(
    truths: Sequence[dict], found: Sequence[dict], count: int
) -> np.ndarray:
    """Objects by boxes, (count + 1, count + 1), as ``MATRIX_ABOUT`` says.

    A box that lies in a crowd region is no error, and the region no object.
    """
    matrix = np.zeros((count + 1, count + 1), int)
    for truth, one in zip(truths, found, strict=True):
        sure = one["scores"] >= SCORE_THR
        labels, objects = one["labels"][sure], ~truth["crowd"]
        overlaps = np.zeros((len(labels), len(objects)), bool)
        if overlaps.size:
            crowd = truth["crowd"].astype(np.uint8)
            overlaps = rle.iou(one["boxes"][sure], truth["boxes"], crowd) >= IOU_THR
        boxes, matched = np.nonzero(overlaps & objects)
        np.add.at(matrix, (truth["labels"][matched], labels[boxes]), 1)
        right = overlaps & (labels[:, None] == truth["labels"])
        np.add.at(matrix, (truth["labels"][objects & ~right.any(0)], count), 1)
        np.add.at(matrix, (count, labels[~overlaps.any(1)]), 1)
    return matrix


def _sample(truth: dict, found: dict) -> DetDataSample:
    objects = np.flatnonzero(~truth["crowd"])
    sure = np.flatnonzero(found["scores"] >= SCORE_THR)
    return DetDataSample(
        gt_instances=_instances(truth, objects, found["shape"]),
        pred_instances=_instances(found, sure, found["shape"]),
    )


def _instances(one: dict, chosen: np.ndarray, shape: tuple[int, int]) -> InstanceData:
    corners = one["boxes"][chosen].copy()
    corners[:, 2:] += corners[:, :2]
    # A box that leaves the image would make the visualizer shrink the image.
    corners = corners.clip(0, [shape[1], shape[0]] * 2)
    instances = InstanceData(
        bboxes=torch.from_numpy(corners), labels=torch.from_numpy(one["labels"][chosen])
    )
    if "scores" in one:
        instances.scores = torch.from_numpy(one["scores"][chosen])
    if one["masks"] is not None:
        masks = [_bitmap(one["masks"][i], shape) for i in chosen]
        masks = np.stack(masks) if masks else np.zeros((0, *shape), bool)
        instances.masks = torch.from_numpy(masks)
    return instances


def _bitmap(mask: list | dict, shape: tuple[int, int]) -> np.ndarray:
    """COCO's polygons, uncompressed or compressed RLE as (H, W) bool."""
    if isinstance(mask, list):
        mask = rle.merge(rle.frPyObjects(mask, *shape))
    elif isinstance(mask["counts"], list):
        mask = rle.frPyObjects(mask, *shape)
    return rle.decode(mask).astype(bool)
