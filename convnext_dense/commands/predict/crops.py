"""Writes the crop of each object as an image: ``--save-crops``.

    OUT/crops/CLASS/NAME_1.jpg             the objects of an image, best score first
    OUT/crops/CLASS/CLIP.mp4/000001_1.jpg  those of the frames of a video

The numbers count the objects of all classes in an image.
"""

import math
import re
from pathlib import Path

import numpy as np
from mmengine.structures import InstanceData

from .writing import write_picture

FOLDER = "crops"


def write_crops(
    out: Path,
    name: str,
    image: np.ndarray,
    instances: InstanceData,
    classes: tuple[str, ...],
    score_thr: float,
) -> None:
    """Write the crops of an image's objects.

    Args:
        out: the folder of all results.
        name: of the image, without a suffix; it may have folders.
        image: (H, W, 3) RGB uint8.
        instances: the objects, in the image's pixels.
        classes: the names of the labels.
        score_thr: objects that have no higher score are left out.
    """
    height, width = image.shape[:2]
    instances = instances[instances.scores > score_thr]
    order = instances.scores.argsort(descending=True, stable=True).tolist()
    for number, index in enumerate(order, 1):
        x1, y1, x2, y2 = instances.bboxes[index].tolist()
        left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
        crop = image[top : min(height, math.ceil(y2)), left : min(width, math.ceil(x2))]
        if crop.size:  # a box outside the image has none
            folder = folder_name(classes[int(instances.labels[index])])
            write_picture(out / FOLDER / folder / f"{name}_{number}.jpg", crop)


def folder_name(name: str) -> str:
    """A class's name as the name of a folder on every system.

    >>> folder_name("car/truck: old")
    'car_truck_ old'
    """
    safe = re.sub(r'[\\/:*?"<>|\0-\x1f]', "_", name).strip(". ")
    return safe[:100] or "_"
