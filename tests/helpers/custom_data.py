"""Small custom data: a COCO file and label maps, to train on and to damage."""

import json

import numpy as np
import PIL.Image
from pycocotools import mask as mask_api

WIDTH, HEIGHT = 64, 48
# The ids have gaps and are not in order.
CATEGORIES = [dict(id=7, name="Käfer"), dict(id=3, name="ant <b>")]


def photograph(file, seed=0, mode="RGB", orientation=None, size=(WIDTH, HEIGHT)):
    """Write noise as an image file.

    Args:
        mode: Pillow's.
        orientation: EXIF's, 1 to 8; None writes no EXIF orientation.
        size: width and height.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 4), np.uint8)
    if mode == "I;16":
        image = PIL.Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    else:
        image = PIL.Image.fromarray(noise, "RGBA").convert(mode)
    exif = PIL.Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    image.save(file, exif=exif)
    return file


def box(number, image, category=7, at=(10, 12, 30, 20), **more):
    """A COCO annotation whose mask is its box, as a polygon.

    Args:
        number: its id.
        image, category: the ids of its image and category.
        at: its box: x, y, width, height.
        more: keys that replace others.
    """
    x, y, w, h = at
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    return {
        **dict(id=number, image_id=image, category_id=category, bbox=list(at)),
        **dict(segmentation=[polygon], area=w * h, iscrowd=0),
        **more,
    }


def rle(at=(10, 12, 30, 20), compressed=True, width=WIDTH, height=HEIGHT):
    """The RLE of a mask that fills a box, compressed or as a list of numbers."""
    x, y, w, h = at
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    encoded = mask_api.encode(mask)
    if compressed:
        return dict(size=[height, width], counts=encoded["counts"].decode())
    flat = mask.reshape(-1, order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [2]]))).tolist()
    return dict(size=[height, width], counts=np.diff([0, *edges]).tolist())


def coco(root, images=6):
    """Write images, and return the content of a COCO file that lists them.

    It has polygons, compressed and uncompressed RLE, a crowd region and an image
    without objects.
    """
    listed = []
    for i in range(images):
        name = f"Bild {i} ü.jpg" if i else "sub folder/0.jpg"
        photograph(root / name, i)
        listed.append(dict(id=100 - i, file_name=name, width=WIDTH, height=HEIGHT))
    objects = [
        box(1, 100),
        box(2, 100, 3, (2, 3, 20, 15)),
        box(3, 99, 3, segmentation=rle()),
        box(4, 98, 7, segmentation=rle(compressed=False)),
        box(5, 97, 7, iscrowd=1, segmentation=rle(compressed=False)),
        box(6, 97, 3, (40, 20, 16, 24)),
        box(7, 96, 7),
    ]
    objects = [o for o in objects if o["image_id"] > 100 - images]
    return dict(images=listed, annotations=objects, categories=CATEGORIES)


def save(content, file):
    """Write JSON, and return the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


COLORS = {"ground": (0, 0, 0), "Käfer": (200, 10, 10), "ant": (10, 200, 10)}


def label_array(seed=0):
    """Labels 0, 1 and 2 in stripes, 255 in a corner, (HEIGHT, WIDTH) uint8."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:, 16 + seed : 32] = 1
    labels[:, 32:] = 2
    labels[:4, :4] = 255
    return labels


def save_labels(labels, file, label_format="grey"):
    """Write a label map.

    Args:
        label_format: 'grey', '16 bits', '32 bits', 'palette', 'three channels' (grey)
            or 'colors', those of ``COLORS``.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if label_format == "colors":
        table = np.zeros((256, 3), np.uint8)
        table[:3] = list(COLORS.values())
        table[255] = (255, 255, 255)
        image = PIL.Image.fromarray(table[labels])
    elif label_format == "three channels":
        image = PIL.Image.fromarray(np.stack([labels] * 3, -1))
    elif label_format == "16 bits":
        image = PIL.Image.fromarray(labels.astype(np.uint16))
    elif label_format == "32 bits":
        image = PIL.Image.fromarray(labels.astype(np.int32))
    else:
        image = PIL.Image.fromarray(labels)
        if label_format == "palette":
            image.putpalette(np.random.default_rng(0).bytes(768))
    image.save(file)
    return file


def write_label_maps(root, images=4, label_format="grey"):
    """Write images into ``root``/images and label maps into ``root``/labels."""
    for i in range(images):
        photograph(root / f"images/Bild {i} ü.jpg", i)
        save_labels(label_array(i), root / f"labels/Bild {i} ü.png", label_format)
    return root


def color_map(file):
    """Write the colour map of ``COLORS``, with white as 'ignore'."""
    lines = [f"{r} {g} {b} {name}" for name, (r, g, b) in COLORS.items()]
    file.write_text("\n".join([*lines, "255 255 255 ignore"]), encoding="utf-8")
    return file
