"""The built-in data set, shapes: images drawn from a seed when first used.

Discs, squares, triangles, stars and crosses of varied size overlap on textured
grounds. Each class has its outline, its range of hues and its pattern. The layout is
that of custom data:

    ROOT/images/{train,val}/000001.jpg
    ROOT/annotations/instances_{train,val}.json    COCO, masks as polygons
    ROOT/labels/{train,val}/000001.png             0 is the ground, 1 to 5 the classes

Masks cover the visible pixels of an object, as COCO's do.
"""

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.registry import DATASETS
from rich.progress import track

from convnext_dense.utils import files, partials
from convnext_dense.utils.images import encode

CLASSES = ("disc", "square", "triangle", "star", "cross")
PALETTE = [(220, 60, 50), (60, 130, 230), (50, 190, 90), (240, 190, 30), (170, 80, 210)]
GROUND, GROUND_COLOR = "ground", (90, 90, 90)

SIZE = 320  # pixels of each side
COUNTS = {"train": 320, "val": 60}  # images
MAX_OBJECTS = 6
MIN_RADIUS, MAX_RADIUS = 24, 80  # pixels
MAX_COVERED = 0.35  # of an object's pixels, by the objects in front of it
# OpenCV's hues, from 0 to 179.
HUES = {"disc": 0, "square": 110, "triangle": 60, "star": 25, "cross": 145}
HUE_SPREAD = 10
GRAIN = 4.0  # standard deviation of the noise on pixels from 0 to 255
ANTIALIAS = 4  # bits of sub-pixel precision of corners


@DATASETS.register_module("ShapesDetection")
def shapes_detection(data_root: str, **kwargs):
    """mmdet's ``CocoDataset`` of shapes; draws them if ``data_root`` is missing."""
    draw_once(data_root)
    metainfo = shapes_detection.METAINFO
    cfg = dict(type="mmdet.CocoDataset", data_root=data_root, metainfo=metainfo)
    return DATASETS.build({**cfg, **kwargs})


shapes_detection.METAINFO = dict(classes=CLASSES, palette=PALETTE)


@DATASETS.register_module("ShapesSegmentation")
def shapes_segmentation(data_root: str, **kwargs):
    """mmseg's ``BaseSegDataset`` of shapes; draws them if ``data_root`` is missing."""
    draw_once(data_root)
    metainfo = shapes_segmentation.METAINFO
    cfg = dict(type="mmseg.BaseSegDataset", data_root=data_root, metainfo=metainfo)
    return DATASETS.build({**cfg, **kwargs})


shapes_segmentation.METAINFO = dict(
    classes=(GROUND, *CLASSES), palette=[GROUND_COLOR, *PALETTE]
)


def draw_once(root: str | os.PathLike) -> None:
    """Draw the data set into ``root``, unless ``root`` exists.

    It is drawn into another folder, which is then renamed. So ``root`` is complete
    whenever it exists, even if several processes start at once or one is stopped.

    Raises:
        InputError: the folder cannot be written.
    """
    root = Path(root)
    if root.exists():
        return
    files.check_folder(root, "the built-in data set in")
    root.absolute().parent.mkdir(parents=True, exist_ok=True)
    with partials.folder(root.absolute().parent) as temporary:
        drawn = temporary / root.name
        drawn.mkdir()
        draw(drawn, seed=0)
        try:
            drawn.rename(root)
        except OSError:
            if not root.exists():
                raise  # otherwise another process has drawn it


def draw(root: Path, seed: int, counts: dict[str, int] = COUNTS) -> None:
    """Draw ``counts`` images of each split, with their annotations, into ``root``."""
    rng = np.random.default_rng(seed)
    for split, count in counts.items():
        images, labels = root / "images" / split, root / "labels" / split
        for folder in (images, labels, root / "annotations"):
            folder.mkdir(parents=True, exist_ok=True)
        coco: dict[str, Any] = {
            "info": {"description": f"convnext_dense shapes, {split}, seed {seed}"},
            "licenses": [],
            "categories": [{"id": i, "name": n} for i, n in enumerate(CLASSES, 1)],
            "images": [],
            "annotations": [],
        }
        for number in track(range(1, count + 1), f"drawing shapes, {split}"):
            name = f"{number:06d}"
            picture, label, objects = draw_picture(rng)
            (images / f"{name}.jpg").write_bytes(encode(".jpg", picture))
            (labels / f"{name}.png").write_bytes(encode(".png", label))
            coco["images"].append(
                {
                    "id": number,
                    "file_name": f"{name}.jpg",
                    "width": SIZE,
                    "height": SIZE,
                }
            )
            for category, mask in objects:
                coco["annotations"].append(
                    {
                        "id": len(coco["annotations"]) + 1,
                        "image_id": number,
                        "category_id": category,
                        "iscrowd": 0,
                        **_annotation(mask),
                    }
                )
        file = root / "annotations" / f"instances_{split}.json"
        file.write_text(json.dumps(coco))


def draw_picture(
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, np.ndarray]]]:
    """Draw an image, its label map, and its objects from back to front.

    Returns:
        picture (SIZE, SIZE, 3) BGR uint8; label (SIZE, SIZE) uint8, 0 ground;
        a list of (category from 1, visible mask (SIZE, SIZE) bool).
    """
    picture = _ground(rng)
    objects: list[tuple[int, np.ndarray, np.ndarray]] = []
    for _ in range(rng.integers(1, MAX_OBJECTS + 1)):
        category = int(rng.integers(len(CLASSES)))
        # The logarithm is uniform, so small objects are as frequent as large ones.
        radius = np.exp(rng.uniform(np.log(MIN_RADIUS), np.log(MAX_RADIUS)))
        center = rng.uniform(0.7 * radius, SIZE - 0.7 * radius, 2)
        outline = _outline(CLASSES[category], rng) * radius + center
        alpha = _fill(outline)
        whole = alpha > 0.5
        visible = [(c, full, seen & ~whole) for c, full, seen in objects]
        if any(s.sum() < (1 - MAX_COVERED) * f.sum() for _, f, s in visible):
            continue
        objects = [*visible, (category + 1, whole, whole)]
        (left, top), (right, bottom) = _box(outline)
        paint = _paint(CLASSES[category], right - left, bottom - top, rng)
        region = picture[top:bottom, left:right]  # a view: the sum changes picture
        region += (paint - region) * alpha[top:bottom, left:right, None]
    picture += GRAIN * rng.standard_normal(picture.shape, np.float32)
    label = np.zeros((SIZE, SIZE), np.uint8)
    for category, _, seen in objects:
        label[seen] = category
    return (
        picture.clip(0, 255).astype(np.uint8),
        label,
        [(category, seen) for category, _, seen in objects],
    )


def _outline(shape: str, rng: np.random.Generator) -> np.ndarray:
    """Corners (K, 2) of the shape in the unit circle, rotated at random."""
    if shape == "cross":
        arm = 0.34
        quarter = np.array([(arm, 0.94), (arm, arm), (0.94, arm)])
        corners = np.concatenate(
            [quarter @ [[c, s], [-s, c]] for c, s in ((1, 0), (0, -1), (-1, 0), (0, 1))]
        )
    else:
        number = {"disc": 40, "square": 4, "triangle": 3, "star": 10}[shape]
        angles = np.arange(number) * 2 * np.pi / number
        reach = np.where(np.arange(number) % 2, 0.45, 1) if shape == "star" else 1
        corners = np.stack([np.cos(angles), np.sin(angles)], -1) * np.reshape(
            reach, (-1, 1)
        )
    angle, squeeze = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1, 2)
    c, s = np.cos(angle), np.sin(angle)
    return corners * squeeze @ np.array([[c, s], [-s, c]])


def _fill(outline: np.ndarray) -> np.ndarray:
    """The fraction of each pixel that the polygon covers, (SIZE, SIZE), 0 to 1."""
    alpha = np.zeros((SIZE, SIZE), np.uint8)
    points = np.round(outline * 2**ANTIALIAS).astype(np.int32)
    cv2.fillPoly(alpha, [points], 255, cv2.LINE_AA, ANTIALIAS)
    return alpha.astype(np.float32) / 255


def _box(outline: np.ndarray) -> np.ndarray:
    """The first pixel that the polygon touches and the one after the last.

    Returns:
        (2, 2), x and y of both.
    """
    corners = np.stack([outline.min(0) - 1, outline.max(0) + 2])
    return corners.astype(int).clip(0, SIZE)


def _paint(shape: str, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """The shape's pattern in a light and a dark tone of one hue.

    Returns:
        (height, width, 3) BGR, 0 to 255.
    """
    hue = (HUES[shape] + rng.uniform(-HUE_SPREAD, HUE_SPREAD)) % 180
    saturation, value = rng.uniform(130, 235), rng.uniform(150, 245)
    light = _bgr(hue, saturation, value)
    dark = _bgr(hue, saturation, value * rng.uniform(0.55, 0.75))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(8, 18)
    u = (x * np.cos(angle) + y * np.sin(angle)) / pitch
    v = (y * np.cos(angle) - x * np.sin(angle)) / pitch
    if shape == "disc":  # broad bands
        pattern = np.sin(u)
    elif shape == "square":  # checks
        pattern = np.sin(np.pi * u) * np.sin(np.pi * v)
    elif shape == "triangle":  # stripes
        pattern = np.sin(np.pi * u)
    elif shape == "star":  # plain
        pattern = np.ones_like(u)
    else:  # dots
        pattern = np.cos(np.pi * u) + np.cos(np.pi * v) - 0.6
    tone = (np.clip(pattern * 3, -1, 1)[..., None] + 1) / 2
    return light * tone + dark * (1 - tone)


def _ground(rng: np.random.Generator) -> np.ndarray:
    """A ground of one dull colour with smooth noise at two scales.

    Returns:
        (SIZE, SIZE, 3) BGR, float32.
    """
    ground = np.empty((SIZE, SIZE, 3), np.float32)
    ground[:] = _bgr(rng.uniform(0, 180), rng.uniform(0, 70), rng.uniform(60, 200))
    for cells, strength in ((6, 35), (40, 15)):
        noise = strength * rng.standard_normal((cells, cells), np.float32)
        smooth = cv2.resize(noise, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        ground += np.asarray(smooth, np.float32)[..., None]
    return ground


def _bgr(hue: float, saturation: float, value: float) -> np.ndarray:
    """A colour of OpenCV's 8-bit HSV as BGR, (3,) float32."""
    pixel = np.array([[[hue, saturation, value]]]).astype(np.uint8)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32)


def _annotation(mask: np.ndarray) -> dict:
    """COCO's ``segmentation``, ``bbox`` (x, y, w, h) and ``area`` of a mask.

    OpenCV's contours run through the centres of the border pixels. Contours of the
    mask at twice its size, shifted by half a pixel, run along the outer edge instead,
    so the polygons rasterise to the mask again.
    """
    double = cv2.resize(
        mask.astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST
    )
    contours, _ = cv2.findContours(double, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = [((c.reshape(-1) + 0.5) / 2).tolist() for c in contours if len(c) >= 3]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return {
        "segmentation": polygons,
        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        "area": int(mask.sum()),
    }
