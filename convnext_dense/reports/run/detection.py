"""Results of a detector: AP of each class, precision over recall, confusion.

The truth comes from the data set, at the size of the image files, not from the
pipeline, which may change or filter annotations.
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
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from convnext_dense.utils.masks import to_bitmap

from ..drawing import Drawer
from .results import (
    Picture,
    ValidationResults,
    best_and_worst,
    draw_picture,
    index_by_path,
)

SCORE_THR = 0.3  # boxes with lower scores count only in AP
IOU_THR = 0.5
MAX_BOXES = 100  # of an image, as in COCO's AP
BACKGROUND = "background"
MATRIX_NOTE = (
    f"Boxes of score {SCORE_THR} and above count, as in mmdet's tool: a box counts for "
    f"every object that it overlaps by IoU {IOU_THR}. The last column counts objects "
    "that no box of their class overlaps. The last row counts boxes that overlap no "
    "object."
)


def records(samples: Sequence[BaseDataElement], evaluator: Evaluator) -> list[dict]:
    """The prediction of each sample, small enough to keep.

    Returns:
        for each sample ``path``, ``shape`` (height, width), ``boxes`` (N, 4) as x, y,
        width, height, ``labels`` (N,), ``scores`` (N,) and ``masks`` as RLE or None.
    """
    encoded = _encoded_by_metric(samples, evaluator)
    return [_record(*pair) for pair in zip(samples, encoded, strict=True)]


def _encoded_by_metric(
    samples: Sequence[BaseDataElement], evaluator: Evaluator
) -> list[list | None]:
    """The masks of the samples that CocoMetric has just encoded; encoding is slow."""
    for metric in evaluator.metrics:
        if isinstance(metric, CocoMetric):
            last = [prediction for _, prediction in metric.results[-len(samples) :]]
            if [p["img_id"] for p in last] == [s.img_id for s in samples]:
                return [prediction.get("masks") for prediction in last]
    return [None] * len(samples)


def _record(sample: BaseDataElement, masks: list | None) -> dict:
    predicted = sample.pred_instances
    if masks is None and "masks" in predicted:
        bitmaps = torch.as_tensor(predicted.masks).cpu()
        masks = encode_mask_results(np.asarray(bitmaps))
    return dict(
        path=sample.img_path,
        shape=tuple(sample.ori_shape[:2]),
        boxes=_xywh(predicted.bboxes.cpu().numpy()),
        labels=predicted.labels.cpu().numpy(),
        scores=predicted.scores.cpu().numpy().astype(float),
        masks=masks,
    )


def _xywh(corners: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) as x, y, width, height, from two corners each."""
    corners = corners.reshape(-1, 4).astype(float)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)


def summarize(samples: list[dict], dataset: BaseDataset) -> ValidationResults:
    """Compute the results of one validation.

    Args:
        samples: the ``records`` of all samples.
        dataset: the data set of the samples.
    """
    classes = tuple(dataset.metainfo["classes"])
    indices = index_by_path(dataset)
    truths = [
        _truth(dataset.get_data_info(indices[record["path"]])["instances"])
        for record in samples
    ]
    shapes = [record["shape"] for record in samples]
    with_masks = all(image["masks"] is not None for image in (*samples, *truths))
    box = evaluate(shapes, truths, samples, len(classes), "bbox")
    columns = {"box AP": average_precision(box), "box AP50": average_precision(box, 0)}
    if with_masks:
        mask = evaluate(shapes, truths, samples, len(classes), "segm")
        columns["mask AP"] = average_precision(mask)
        columns["mask AP50"] = average_precision(mask, 0)
    labels = np.concatenate([t["labels"][~t["crowd"]] for t in truths])
    columns["objects"] = np.bincount(labels, minlength=len(classes))

    hits, false, missed = per_image(box, len(samples))
    errors = false + missed
    with np.errstate(invalid="ignore"):  # images without objects and boxes
        measures = 2 * hits / (2 * hits + errors)
    known = np.flatnonzero(hits + errors).tolist()
    drawer = Drawer("mmdet", dataset.metainfo)

    def draw(number: int) -> Picture | None:
        caption = (
            f"F1 {measures[number]:.2f}: {hits[number]} found, "
            f"{missed[number]} missed, {false[number]} wrong"
        )
        sample = _sample(truths[number], samples[number])
        return draw_picture(drawer, samples[number]["path"], caption, sample)

    best, worst, unreadable = best_and_worst(
        sorted(known, key=lambda n: (measures[n], hits[n] - errors[n])), draw
    )
    return ValidationResults(
        classes=classes,
        columns=tuple(columns),
        per_class=np.stack(list(columns.values()), 1),
        matrix=confusion_matrix(truths, samples, len(classes)),
        matrix_names=(*classes, BACKGROUND),
        matrix_note=MATRIX_NOTE,
        precision=_precision(box)[0].T,
        best=best,
        worst=worst,
        measure=f"F1 of the boxes, at score {SCORE_THR} and IoU {IOU_THR}",
        unreadable=unreadable,
    )


def _truth(instances: list[dict]) -> dict:
    """The truth of an image, for ``evaluate``, from the instances that mmdet has."""
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
    predictions: Sequence[dict],
    count: int,
    iou_type: str,
) -> COCOeval:
    """Run pycocotools' evaluation, for objects of all sizes and 100 boxes per image.

    Args:
        shapes: (height, width) of each image.
        truths: of each image ``boxes`` (N, 4) as x, y, width, height, ``labels`` (N,),
            ``masks`` (polygons or RLE) and ``crowd``, (N,) bool.
        predictions: the same, with ``scores`` (N,) instead of ``crowd``.
        count: the number of classes.
        iou_type: 'bbox' or 'segm'.
    """
    evaluation = COCOeval(
        _coco(shapes, truths, count, iou_type),
        _coco(shapes, predictions, count, iou_type),
        iou_type,
    )
    settings = evaluation.params
    settings.areaRng, settings.areaRngLbl = [[0, 1e10]], ["all"]
    settings.maxDets = [MAX_BOXES]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _coco(
    shapes: Sequence[tuple[int, int]],
    images: Sequence[dict],
    count: int,
    iou_type: str,
) -> COCO:
    """Truths or predictions as pycocotools' data set; arguments as in ``evaluate``."""
    annotations: list[dict] = []
    for number, image in enumerate(images):
        for i, label in enumerate(image["labels"]):
            box = image["boxes"][i]
            annotation = dict(
                id=len(annotations) + 1,  # to pycocotools an id of 0 is no match
                image_id=number,
                category_id=int(label),
                bbox=box.tolist(),
                area=float(box[2] * box[3]),
                iscrowd=int(image["crowd"][i]) if "crowd" in image else 0,
            )
            if "scores" in image:
                annotation["score"] = float(image["scores"][i])
            if iou_type == "segm":
                annotation["segmentation"] = image["masks"][i]
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
    """Precision (IoU thresholds, recalls, classes), NaN for classes without objects."""
    precision = evaluation.eval["precision"][..., 0, 0]
    return np.where(precision < 0, np.nan, precision)


def average_precision(
    evaluation: COCOeval, threshold: int | slice = slice(None)
) -> np.ndarray:
    """AP of each class, (classes,), NaN for classes without objects.

    Args:
        threshold: the index of an IoU threshold, 0 for 0.5; by default the mean over
            all of them.
    """
    precision = _precision(evaluation)[threshold]
    return precision.reshape(-1, precision.shape[-1]).mean(0)


def per_image(
    evaluation: COCOeval, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The numbers of objects found, of wrong boxes and of objects missed.

    Args:
        count: the number of images.

    Returns:
        three arrays (images,).
    """
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
    truths: Sequence[dict], predictions: Sequence[dict], count: int
) -> np.ndarray:
    """Count objects by boxes, (count + 1, count + 1), as ``MATRIX_NOTE`` says.

    A box in a crowd region is not an error, and the region is not an object.

    Args:
        truths, predictions: as in ``evaluate``.
        count: the number of classes.
    """
    matrix = np.zeros((count + 1, count + 1), int)
    for truth, prediction in zip(truths, predictions, strict=True):
        sure = prediction["scores"] >= SCORE_THR
        labels, objects = prediction["labels"][sure], ~truth["crowd"]
        overlaps = np.zeros((len(labels), len(objects)), bool)
        if overlaps.size:
            crowd = truth["crowd"].astype(np.uint8)
            ious = mask_api.iou(prediction["boxes"][sure], truth["boxes"], crowd)
            overlaps = ious >= IOU_THR
        boxes, matched = np.nonzero(overlaps & objects)
        np.add.at(matrix, (truth["labels"][matched], labels[boxes]), 1)
        right = overlaps & (labels[:, None] == truth["labels"])
        np.add.at(matrix, (truth["labels"][objects & ~right.any(0)], count), 1)
        np.add.at(matrix, (count, labels[~overlaps.any(1)]), 1)
    return matrix


def _sample(truth: dict, prediction: dict) -> DetDataSample:
    """The objects, without crowds, and the boxes above ``SCORE_THR``, to draw."""
    objects = np.flatnonzero(~truth["crowd"])
    sure = np.flatnonzero(prediction["scores"] >= SCORE_THR)
    return DetDataSample(
        gt_instances=_instances(truth, objects, prediction["shape"]),
        pred_instances=_instances(prediction, sure, prediction["shape"]),
    )


def _instances(image: dict, chosen: np.ndarray, shape: tuple[int, int]) -> InstanceData:
    """The objects or boxes at the indices ``chosen``.

    Args:
        image: a truth or a prediction, as in ``evaluate``.
        shape: height and width of the image.
    """
    corners = image["boxes"][chosen].copy()
    corners[:, 2:] += corners[:, :2]
    # The visualizer shrinks an image whose boxes reach over its edge.
    corners = corners.clip(0, [shape[1], shape[0]] * 2)
    instances = InstanceData(
        bboxes=torch.from_numpy(corners),
        labels=torch.from_numpy(image["labels"][chosen]),
    )
    if "scores" in image:
        instances.scores = torch.from_numpy(image["scores"][chosen])
    if image["masks"] is not None:
        bitmaps = [to_bitmap(image["masks"][i], *shape) for i in chosen]
        masks = np.stack(bitmaps) if bitmaps else np.zeros((0, *shape), bool)
        instances.masks = torch.from_numpy(masks)
    return instances
