"""Images as GIS tools, cameras and other programs write them."""

import io
import struct

import numpy as np
import PIL.Image

FORMATS = {"u": 1, "i": 2, "f": 3, "c": 6}  # TIFF's SampleFormat of a type


def pixels(bands=3, dtype=np.uint8, scale=1, size=(64, 48)):
    """(H, W, bands): the left half is 200, 100, 50, ..., the right half 20, 40, 220."""
    image = np.zeros((size[1], size[0], bands))
    half = size[0] // 2
    for band in range(bands):
        image[:, :half, band] = (200, 100, 50)[band % 3]
        image[:, half:, band] = (20, 40, 220)[band % 3]
    return (image * scale).astype(dtype)


def tiff(image, photometric=2, extra=0, planar=False, order="<", more=(), pages=1):
    """An uncompressed TIFF of (H, W, bands).

    Args:
        photometric: 1 for grey, 2 for RGB.
        extra: meaning of the bands beyond those: 0 unknown, 2 alpha.
        planar: whether the bands are written one after the other.
        more: more tags, pairs of a number and a short integer.
        pages: how often the image is in the file.
    """
    height, width, bands = image.shape
    data = image.transpose(2, 0, 1) if planar else image
    content = data.astype(image.dtype.newbyteorder(order)).tobytes()
    strips = bands if planar else 1
    size = len(content) // strips
    tags = {
        256: [width],
        257: [height],
        258: [8 * image.dtype.itemsize] * bands,
        259: [1],
        262: [photometric],
        273: [8 + size * strip for strip in range(strips)],
        277: [bands],
        278: [height],
        279: [size] * strips,
        284: [2 if planar else 1],
        339: [FORMATS[image.dtype.kind]] * bands,
        **{number: [value] for number, value in more},
    }
    colors = 3 if photometric == 2 else 1
    if bands > colors:
        tags[338] = [extra] * (bands - colors)
    file = {"<": b"II", ">": b"MM"}[order] + struct.pack(
        order + "HI", 42, 8 + len(content)
    )
    file += content
    for page in range(pages):
        entries, values = b"", b""
        after = len(file) + 2 + 12 * len(tags) + 4
        for number, value in sorted(tags.items()):
            packed = struct.pack(f"{order}{len(value)}I", *value)
            place = struct.pack(order + "I", after + len(values))
            if len(value) == 1:
                place = packed
            else:
                values += packed
            entries += struct.pack(order + "HHI", number, 4, len(value)) + place
        following = after + len(values) if page < pages - 1 else 0
        file += struct.pack(order + "H", len(tags)) + entries
        file += struct.pack(order + "I", following) + values
    return file


def saved(image, image_format, **options):
    """The content of a file that Pillow writes.

    Args:
        image: (H, W) or (H, W, channels).
    """
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, image_format, **options)
    return file.getvalue()


def animation(image_format, frames=3, size=(64, 48), durations=100):
    """An animation whose left half, 200, 100, 50, turns into 20, 40, 220 and back.

    Args:
        durations: milliseconds of each frame, or a list of them.
    """
    first = pixels(size=size)
    images = [
        PIL.Image.fromarray(np.ascontiguousarray(first[:, :: (-1) ** number]))
        for number in range(frames)
    ]
    options = dict(quality=95) if image_format == "AVIF" else {}
    if image_format == "WEBP":
        options = dict(lossless=True)
    file = io.BytesIO()
    images[0].save(
        file,
        image_format,
        save_all=True,
        append_images=images[1:],
        duration=durations,
        **options,
    )
    return file.getvalue()
