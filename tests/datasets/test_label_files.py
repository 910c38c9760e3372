"""Label maps of every format have the values that their files store."""

import io
import struct

import numpy as np
import PIL.Image
import pytest

from convnext_dense.datasets.custom.label_files import (
    MISSING,
    NotALabelMap,
    read_values,
)
from convnext_dense.datasets.custom.label_maps import read_label_map
from convnext_dense.datasets.custom.mmseg_dataset import LoadLabelMapAnnotations
from convnext_dense.errors import InputError

from ..helpers.custom_data import label_array, photograph

LABELS = label_array() % 255
GDAL_NODATA = 42113


def tiff(file, values, *pages, **tags):
    """Write a TIFF of any type of values, (H, W) or (H, W, bands), uncompressed.

    Args:
        pages: for each further page the tag 254, which says what it is.
        tags: 'nodata', GDAL's text.
    """
    values = np.ascontiguousarray(values)
    content = bytearray(b"II*\0\0\0\0\0")
    link = 4
    for subfile in (0, *pages):
        height, width, bands = (*values.shape, 1)[:3]
        start = len(content)
        content += values.tobytes()
        bits = len(content)
        content += struct.pack("<8H", *[8 * values.itemsize] * 8)
        kinds = len(content)
        content += struct.pack("<8H", *[dict(u=1, i=2, f=3)[values.dtype.kind]] * 8)
        text = tags.get("nodata", "").encode() + b"\0"
        place = len(content)
        content += text.ljust(8, b"\0")
        grey = bands == 1
        entries = [
            *((254, 4, 1, subfile), (256, 4, 1, width), (257, 4, 1, height)),
            (258, 3, bands, 8 * values.itemsize if grey else bits),
            *((259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, start), (277, 3, 1, bands)),
            *((278, 4, 1, height), (279, 4, 1, values.nbytes), (284, 3, 1, 1)),
            (339, 3, bands, dict(u=1, i=2, f=3)[values.dtype.kind] if grey else kinds),
        ]
        if "nodata" in tags:
            inline = int.from_bytes(text, "little")
            long = len(text) > 4
            entries.append((GDAL_NODATA, 2, len(text), place if long else inline))
        struct.pack_into("<I", content, link, len(content))
        content += struct.pack("<H", len(entries))
        for entry in entries:
            content += struct.pack("<HHII", *entry)
        link = len(content)
        content += b"\0\0\0\0"
    file.write_bytes(content)
    return file


WHOLE = ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"]


@pytest.mark.parametrize("dtype", WHOLE)
def test_tiffs_of_every_type(tmp_path, dtype):
    values = LABELS.astype(dtype)
    assert (read_values(tiff(tmp_path / "a.tif", values)) == LABELS).all()
    if dtype[0] in "if":
        values[0, :3] = -1, -9 if dtype == "i1" else -9999, -100
        expected = LABELS.astype(int)
        expected[0, :3] = MISSING
        assert (read_values(tiff(tmp_path / "a.tif", values)) == expected).all()


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        *(("u1", "0"), ("u2", "65535"), ("i2", "-32768 "), ("i4", "-9999")),
        *(("u4", "4294967295"), ("f4", "nan"), ("f8", "1e+20")),
        *(("f4", "3.4028234663852886e+38"), ("f4", "-3.40282346638529e+38")),
    ],
)
def test_gdals_value_of_missing_pixels(tmp_path, dtype, nodata):
    values = (LABELS + 1).astype(dtype)
    values[0, :3] = float(nodata)
    read = read_values(tiff(tmp_path / "a.tif", values, nodata=nodata))
    assert (read[0, :3] == MISSING).all()
    assert (read[1:] == LABELS[1:] + 1).all()
    labels = read_label_map(tmp_path / "a.tif")
    assert (labels[0, :3] == 255).all()


def test_values_that_are_not_finite(tmp_path):
    values = LABELS.astype("f4")
    values[0, :3] = np.nan, np.inf, -np.inf
    assert (read_values(tiff(tmp_path / "a.tif", values))[0, :3] == MISSING).all()


def test_training_reads_missing_values_as_the_checks_do(tmp_path):
    values = LABELS.astype("i2") - 1
    file = tiff(tmp_path / "a.tif", values)
    results = dict(seg_map_path=str(file), reduce_zero_label=False, seg_fields=[])
    labels = LoadLabelMapAnnotations().transform(dict(results))["gt_seg_map"]
    assert labels.dtype == np.uint8
    assert (labels == np.where(values < 0, 255, values)).all()
    by_id = LoadLabelMapAnnotations(ids=[1, 0])
    labels = by_id.transform(dict(results, seg_fields=[]))["gt_seg_map"]
    assert (labels == np.where(values < 0, 255, 1 - values)).all()


def test_ids_with_gaps(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[7, 300, 255, -1], [9, 0, 7, 300]]))
    labels = read_label_map(tmp_path / "a.npy", ids=[300, 7, 0])
    assert labels.tolist() == [[1, 0, 255, 255], [-1, 2, 1, 0]]
    labels = read_label_map(tmp_path / "a.npy", ids=[255, 7], zero=False)
    assert labels.tolist() == [[1, -1, 0, 255], [-1, 255, 1, -1]]


def test_overviews_of_a_geotiff_are_no_pages(tmp_path):
    file = tiff(tmp_path / "a.tif", LABELS.astype("u1"), 1, 5, 4)
    assert (read_values(file) == LABELS).all()


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda f: tiff(f, LABELS.astype("u1"), 0), "it has 2 pages"),
        (lambda f: tiff(f, LABELS.astype("f4") / 2), "not whole numbers, such as 0.5"),
        (lambda f: tiff(f, np.zeros((4, 4, 2), "f4")), "several bands"),
        (lambda f: tiff(f, np.zeros((4, 4, 5), "u2")), "several bands"),
        (lambda f: tiff(f, LABELS.astype("i8")), "64-bit integers"),
        (lambda f: photograph(f).rename(f), "pixels are colours"),
        (lambda f: photograph(f.with_suffix(".jpg")).rename(f), "it is a JPEG, which"),
        (lambda f: photograph(f.with_suffix(".webp")).rename(f), "it is a WEBP, which"),
        (
            lambda f: PIL.Image.fromarray(LABELS).save(f, compression="jpeg"),
            "it is a JPEG, which",
        ),
        (
            lambda f: PIL.Image.fromarray(LABELS).save(
                f,
                "GIF",
                save_all=True,
                append_images=[PIL.Image.new("L", (64, 48), 9)],
            ),
            "it is an animated GIF",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_are_no_label_maps(tmp_path, write, says):
    write(tmp_path / "a.tif")
    with pytest.raises(NotALabelMap, match=says):
        read_values(tmp_path / "a.tif")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_values_of_few_bits(tmp_path, bits):
    """Pillow would read 0, 85, 170 and 255 from a PNG with the values 0 to 3."""
    values = LABELS.astype(np.uint8) % 2**bits
    image = PIL.Image.fromarray(values * (255 // (2**bits - 1)))
    content = io.BytesIO()
    image.save(content, "PNG")
    content = content.getvalue()
    rows = np.unpackbits(values[..., None], axis=-1)[..., -bits:].reshape(48, -1)
    packed = np.packbits(rows, axis=1)
    (tmp_path / "a.png").write_bytes(png(packed, bits))
    assert (read_values(tmp_path / "a.png") == values).all()


def png(rows, bits):
    """A PNG with one channel of fewer than 8 bits, from its packed rows."""
    import zlib

    def chunk(name, data):
        size = struct.pack(">I", len(data))
        return size + name + data + struct.pack(">I", zlib.crc32(name + data))

    width = rows.shape[1] * 8 // bits
    header = struct.pack(">2I5B", width, len(rows), bits, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_gifs(tmp_path):
    """Grey values where the palette is grey, as DRIVE's, else the palette's indices."""
    PIL.Image.fromarray((LABELS > 0).astype(np.uint8) * 255).save(tmp_path / "a.gif")
    assert (read_values(tmp_path / "a.gif") == (LABELS > 0) * 255).all()
    image = PIL.Image.fromarray(LABELS.astype(np.uint8))
    image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
    image.save(tmp_path / "b.gif", optimize=False)
    assert (read_values(tmp_path / "b.gif") == LABELS).all()


@pytest.mark.parametrize("dtype", ["u1", "i2", ">u4", "i8", "u8", "f2", "f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numpy_files(tmp_path, dtype, order):
    np.save(tmp_path / "a.npy", np.asarray(LABELS.astype(dtype), order=order))
    assert (read_values(tmp_path / "a.npy") == LABELS).all()
    np.save(tmp_path / "a.npy", LABELS.astype(dtype)[None])
    assert (read_values(tmp_path / "a.npy") == LABELS).all()


def test_numpy_files_of_truth_values_and_large_numbers(tmp_path):
    np.save(tmp_path / "a.npy", LABELS == 1)
    assert (read_values(tmp_path / "a.npy") == (LABELS == 1)).all()
    np.save(tmp_path / "a.npy", np.array([[2**63, 2**40]], np.uint64))
    assert read_values(tmp_path / "a.npy").tolist() == [[2**31 - 1] * 2]


class Harm:
    """Writes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.zeros((4, 4, 3)), r"its shape is \(4, 4, 3\)"),
        (np.zeros(4), r"its shape is \(4,\)"),
        (np.zeros((0, 4)), "its shape is"),
        (np.full((2, 2), 0.5), "not whole numbers, such as 0.5"),
        (np.full((2, 2), "a"), "its values are of the type <U1"),
        (np.full((2, 2), 1j), "its values are of the type complex128"),
    ],
)
def test_numpy_files_that_are_no_label_maps(tmp_path, values, says):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(NotALabelMap, match=says):
        read_values(tmp_path / "a.npy")


def test_numpy_files_that_would_do_harm(tmp_path):
    file = tmp_path / "a.npy"
    np.save(file, np.array([[Harm(tmp_path / "harm")]], object), allow_pickle=True)
    with pytest.raises(NotALabelMap, match="its values are of the type object"):
        read_values(file)
    assert not (tmp_path / "harm").exists()
    np.save(file, LABELS)
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(NotALabelMap, match="does not fit its shape"):
        read_values(file)
    file.write_bytes(content.replace(b"(48, 64)", b"(4800000, 6400)"))
    with pytest.raises(InputError, match="the most are"):
        read_values(file)
    file.write_bytes(content[:40])
    with pytest.raises(NotALabelMap, match="damaged"):
        read_values(file)
