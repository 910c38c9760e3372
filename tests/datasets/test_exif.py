"""Annotations are turned by EXIF exactly as Pillow turns the image."""

import io

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from pycocotools import mask as mask_api

from convnext_dense.datasets.custom.exif import turn_annotation, turn_map
from convnext_dense.utils.masks import to_bitmap

from ..helpers.custom_data import HEIGHT, WIDTH, box, rle

ALL = range(1, 9)


def by_pillow(array, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    PIL.Image.fromarray(array).save(file, "png", exif=exif)
    return np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(file)))


@pytest.mark.parametrize("orientation", ALL)
def test_maps(orientation):
    array = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    assert (turn_map(array, orientation) == by_pillow(array, orientation)).all()


@pytest.mark.parametrize("orientation", ALL)
@pytest.mark.parametrize("mask_format", ["polygon", "rle", "counts", "box"])
def test_annotations(orientation, mask_format):
    """The mask is an L, which every turn changes."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:40, 10:20] = mask[30:40, 10:60] = 1
    annotation = box(1, 1, at=(10, 5, 50, 35))
    if mask_format == "polygon":
        points = [10, 5, 20, 5, 20, 30, 60, 30, 60, 40, 10, 40]
        annotation["segmentation"] = [points]
    elif mask_format == "box":
        del annotation["segmentation"]
    else:
        encoded = mask_api.encode(np.asfortranarray(mask))
        counts = encoded["counts"].decode()
        annotation["segmentation"] = dict(size=[HEIGHT, WIDTH], counts=counts)
    if mask_format == "counts":
        annotation["segmentation"] = rle((10, 5, 50, 35), compressed=False)
        mask[5:40, 10:60] = 1
    turned = turn_annotation(annotation, orientation, WIDTH, HEIGHT)
    truth = by_pillow(mask, orientation)
    rows, columns = np.flatnonzero(truth.any(1)), np.flatnonzero(truth.any(0))
    x, y = columns[0], rows[0]
    assert turned["bbox"] == [x, y, columns[-1] + 1 - x, rows[-1] + 1 - y]
    if mask_format != "box":
        bitmap = to_bitmap(turned["segmentation"], *truth.shape)
        assert (bitmap == truth).all()
