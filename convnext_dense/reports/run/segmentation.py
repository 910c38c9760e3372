"""Segmentation: IoU of each class and image, and which pixels are taken for which."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement, PixelData

from ..drawing import Drawer
from .examples import Findings, Picture, best_and_worst, by_path, picture

COLUMNS = ("IoU", "accuracy", "share of pixels")


def records(samples: Sequence[BaseDataElement], evaluator: Evaluator) -> list[dict]:
    """What the page needs of each sample: its pairs of classes, its label map.

    Args:
        samples: with ``gt_sem_seg`` and ``pred_sem_seg``, both (1, H, W).
        evaluator: its first metric tells which label is ignored.
    """
    ignored = getattr(evaluator.metrics[0], "ignore_index", 255)
    count = len(evaluator.dataset_meta["classes"])
    return [_record(sample, count, ignored) for sample in samples]


def _record(sample: BaseDataElement, count: int, ignored: int) -> dict:
    predicted = sample.pred_sem_seg.data.squeeze(0)
    truth = sample.gt_sem_seg.data.squeeze(0).to(predicted.device).long()
    counted = (truth != ignored) & (truth >= 0) & (truth < count)
    cells = truth[counted] * count + predicted[counted].long()
    pixels = torch.bincount(cells, minlength=count**2)
    cells = pixels.nonzero().squeeze(1)
    kind = np.uint8 if count <= 256 else np.uint16
    _, png = cv2.imencode(".png", predicted.cpu().numpy().astype(kind))
    return dict(
        path=sample.img_path,
        cells=cells.cpu().numpy(),
        pixels=pixels[cells].cpu().numpy(),
        png=png,
    )


def findings(made: list[dict], dataset: BaseDataset) -> Findings:
    """
    Args:
        made: the ``records`` of one validation.
        dataset: that they are of.
    """
    classes = tuple(dataset.metainfo["classes"])
    count = len(classes)
    total, measures = np.zeros(count**2, np.int64), []
    for record in made:
        cells, pixels = record["cells"], record["pixels"]
        total[cells] += pixels
        truth = np.bincount(cells // count, pixels, count)
        predicted = np.bincount(cells % count, pixels, count)
        hit = np.bincount(cells // count, pixels * (cells % (count + 1) == 0), count)
        measures.append(_mean(_ratio(hit, truth + predicted - hit)))
    matrix = total.reshape(count, count)
    hit, truth, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    shares = [
        _ratio(hit, truth + predicted - hit),
        _ratio(hit, truth),
        truth / max(truth.sum(), 1),
    ]

    known = [number for number in range(len(made)) if not np.isnan(measures[number])]
    drawer, indices = Drawer("mmseg", dataset.metainfo), by_path(dataset)

    def draw(number: int) -> Picture | None:
        record = made[number]
        sample = dataset[indices[record["path"]]]["data_samples"]
        labels = cv2.imdecode(record["png"], cv2.IMREAD_UNCHANGED)
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(labels[None]).long())
        caption = f"mIoU {100 * measures[number]:.1f}"
        return picture(drawer, record["path"], caption, sample)

    best, worst, unreadable = best_and_worst(
        sorted(known, key=lambda number: measures[number]), draw
    )
    return Findings(
        classes=classes,
        columns=COLUMNS,
        per_class=100 * np.stack(shares, 1),
        matrix=matrix,
        matrix_rows=classes,
        matrix_about="Pixels.",
        precision=None,
        best=best,
        worst=worst,
        pictures_about="mean IoU of the classes in an image's truth or prediction",
        unreadable=unreadable,
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """NaN for a class that is nowhere."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
