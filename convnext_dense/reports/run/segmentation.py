"""Results of a segmentor: IoU of each class and image, and the confusion of pixels."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement, PixelData

from ..drawing import Drawer
from .results import (
    Picture,
    ValidationResults,
    best_and_worst,
    draw_picture,
    index_by_path,
)

COLUMNS = ("IoU", "accuracy", "share of pixels")


def records(samples: Sequence[BaseDataElement], evaluator: Evaluator) -> list[dict]:
    """The counts and the predicted label map of each sample, small enough to keep.

    Args:
        samples: with ``gt_sem_seg`` and ``pred_sem_seg``, both (1, H, W).
        evaluator: its first metric says which label is ignored.

    Returns:
        for each sample ``path``; ``cells``, truth * classes + prediction, and
        ``pixels``, how many pixels each of these has; ``png``, the label map.
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
    dtype = np.uint8 if count <= 256 else np.uint16
    _, png = cv2.imencode(".png", predicted.cpu().numpy().astype(dtype))
    return dict(
        path=sample.img_path,
        cells=cells.cpu().numpy(),
        pixels=pixels[cells].cpu().numpy(),
        png=png,
    )


def summarize(samples: list[dict], dataset: BaseDataset) -> ValidationResults:
    """Compute the results of one validation.

    Args:
        samples: the ``records`` of all samples.
        dataset: the data set of the samples.
    """
    classes = tuple(dataset.metainfo["classes"])
    count = len(classes)
    total, measures = np.zeros(count**2, np.int64), []
    for record in samples:
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

    known = [i for i, measure in enumerate(measures) if not np.isnan(measure)]
    drawer, indices = Drawer("mmseg", dataset.metainfo), index_by_path(dataset)

    def draw(number: int) -> Picture | None:
        record = samples[number]
        sample = dataset[indices[record["path"]]]["data_samples"]
        labels = cv2.imdecode(record["png"], cv2.IMREAD_UNCHANGED)
        label_map = torch.from_numpy(np.asarray(labels)[None]).long()
        sample.pred_sem_seg = PixelData(data=label_map)
        caption = f"mIoU {100 * measures[number]:.1f}"
        return draw_picture(drawer, record["path"], caption, sample)

    best, worst, unreadable = best_and_worst(
        sorted(known, key=lambda number: measures[number]), draw
    )
    return ValidationResults(
        classes=classes,
        columns=COLUMNS,
        per_class=100 * np.stack(shares, 1),
        matrix=matrix,
        matrix_names=classes,
        matrix_note="Pixels are counted.",
        precision=None,
        best=best,
        worst=worst,
        measure="mean IoU of the classes in an image's truth or prediction",
        unreadable=unreadable,
    )


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The ratio for each class; NaN where the denominator is 0."""
    ratio = numerator / np.maximum(denominator, 1)
    return np.where(denominator > 0, ratio, np.nan)


def _mean(values: np.ndarray) -> float:
    """The mean of the values that are not NaN; NaN if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
