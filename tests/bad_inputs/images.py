"""Image files and videos that cannot be read, and unusual ones that can."""

import os
from collections.abc import Callable

import numpy as np
from PIL import Image

from ..helpers.custom_data import HEIGHT, WIDTH, coco, photograph, save
from ..helpers.hostile_images import many_scans, png, tiff_tags
from ..helpers.image_kinds import animation, pixels, saved, tiff
from .case import Case, write
from .weights import save as checkpoint

SIZE = (WIDTH, HEIGHT)
FIRST = "sub folder/0.jpg"


def inspect(
    mistake: str, make: Callable, says: str, code: int = 1, size=(WIDTH, HEIGHT), **more
) -> Case:
    """Six images with a COCO file; ``make(file)`` replaces the first image.

    Args:
        size: of the first image, in the COCO file.
    """

    def arguments(t):
        content = coco(t / "images")
        content["annotations"] = content["annotations"][2:]  # none of the first
        make(t / "images" / FIRST)
        content["images"][0].update(width=size[0], height=size[1])
        where = ["--train-json", save(content, t / "o.json")]
        return [*where, "--train-images", t / "images"]

    return Case("inspect_data", mistake, arguments, says, code, **more)


def predict(mistake: str, name: str, make: Callable, says: str) -> Case:
    """A good image, and the file that ``make(file)`` writes."""

    def arguments(t):
        photograph(t / "in/good.png")
        make(t / "in" / name)
        return [checkpoint(t, "seg"), t / "in", "--out", "out"]

    says = f"1 of 2 files could not be predicted: .../{name}: {says}"
    return Case("predict", mistake, arguments, says, 1, ("out",))


def content(text: str | bytes) -> Callable:
    """Write ``text`` into a file."""
    return lambda file: write(file, text)


def cut(file):
    """Cut a file to half its length."""
    write(file, file.read_bytes()[: file.stat().st_size // 2])


def zeros(file):
    """Overwrite the second half with zeros, as a copy that broke off leaves it."""
    size = file.stat().st_size
    write(file, file.read_bytes()[: size // 2] + bytes(size - size // 2))


def header(file):
    """Invert bytes of a JPEG's tables."""
    bad = bytearray(file.read_bytes())
    bad[200:260] = (byte ^ 0xFF for byte in bad[200:260])
    write(file, bytes(bad))


def blank(size=(WIDTH, HEIGHT)):
    """Write a black PNG."""
    return lambda file: Image.new("RGB", size).save(file, "PNG")


def noise(mode, ending):
    """Write noise in ``mode``, in the format of another ending."""
    return lambda file: photograph(file.with_suffix(ending), 0, mode).rename(file)


def huge(side):
    """Write a PNG whose header says that it has ``side`` rows and columns."""
    return content(png(side, side))


def floats(file):
    """Write a TIFF of floats."""
    pixels = np.ones((HEIGHT, WIDTH), np.float32)
    Image.fromarray(pixels).save(file, "TIFF")


def folder_of_everything(t):
    """Make a folder of an image, an animation, texts and a subfolder."""
    photograph(t / "in/good.png")
    write(t / "in/moving.gif", animation("GIF", 2, (64, 64)))
    write(t / "in/a.json", "{}")
    write(t / "in/b.txt", "a list")
    photograph(t / "in/sub/c.png")
    return "in"


def one_pixel(t):
    """Write a PNG of one pixel."""
    return photograph(t / "x.png", size=(1, 1))


BAD = f"error: images that cannot be read or resized: 1 ({FIRST}: "
WELL = "train: images: 5, classes: 2"
EPS = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
TEXT = content("<html>404 Not Found</html>")


def then(*steps):
    """Apply steps one after the other."""
    return lambda file: [step(file) for step in steps]


CASES = [
    inspect("a JPEG cut short", cut, BAD + "image file is truncated"),
    inspect("a JPEG whose end is zeros", zeros, BAD + "its end is missing"),
    inspect("a JPEG with a damaged header", header, BAD),
    inspect("a PNG cut short", then(blank(), cut), BAD),
    inspect("an empty file", content(""), BAD + "empty file"),
    inspect("text named .jpg", TEXT, BAD + "it is a web page (HTML)"),
    inspect(
        "a HEIC named .jpg",
        content(b"\0\0\0\x18ftypheic" + bytes(100)),
        BAD + "it is a HEIC image: save it as JPEG or PNG",
    ),
    inspect(
        "a folder named .jpg",
        then(lambda f: f.unlink(), lambda f: f.mkdir()),
        f"error: images that are not in the folder: 1 ({FIRST})",
    ),
    inspect(
        "a link to nothing",
        then(lambda f: f.unlink(), lambda f: f.symlink_to("nowhere")),
        f"error: images that are not in the folder: 1 ({FIRST})",
    ),
    inspect(
        "an image that may not be read",
        lambda f: f.chmod(0),
        BAD + "it cannot be read: Permission denied",
        not_root=True,
    ),
    inspect(
        "an image of 20000 x 20000 pixels",
        huge(20000),
        BAD + "400,000,000 pixels, and the most are 178,956,970: cut it into tiles",
        size=(20000, 20000),
    ),
    inspect(
        "a pipe (FIFO)",
        then(lambda f: f.unlink(), os.mkfifo),
        f"error: images that are not in the folder: 1 ({FIRST})",
    ),
    inspect(
        "an EPS named .jpg",
        content(EPS),
        BAD + "it is a PostScript file (EPS): save it as PNG",
    ),
    inspect(
        "a JPEG of thousands of scans",
        content(many_scans(5000)),
        BAD + "it has more than 100 scans or segments of EXIF data",
    ),
    inspect(
        "a TIFF whose tags all refer to the same bytes",
        content(tiff_tags(20_000)),
        BAD + "its tags refer to 2,000,000,000 bytes, and the file has 340,014",
    ),
    inspect(
        "an image of 20000 x 1 pixels",
        blank(size=(20000, 1)),
        BAD + "20000 x 1 pixels: one side is more than 100 times the other",
        size=(20000, 1),
    ),
    inspect(
        "an image of 1 pixel",
        blank(size=(1, 1)),
        f"warning: images with a side below 32 pixels: 1 ({FIRST}: 1 x 1); training",
        0,
        size=(1, 1),
    ),
    inspect("grey of 16 bits", noise("I;16", ".png"), WELL, 0),
    inspect("CMYK", noise("CMYK", ".jpeg"), WELL, 0),
    inspect("RGB with alpha", noise("RGBA", ".png"), WELL, 0),
    inspect(
        "a TIFF of floats",
        floats,
        BAD + "its pixels are floats of 32 bits: save it as a PNG of 8 bits",
    ),
    inspect(
        "a TIFF of 13 bands",
        content(tiff(pixels(13, np.uint16, 257, SIZE), 1)),
        BAD + "its 13 bands are not marked as RGB, and OpenCV would read the first",
    ),
    inspect(
        "values of 12 bits in a PNG of 16 bits",
        content(saved(pixels(1, np.uint16, 16, SIZE)[..., 0], "PNG")),
        BAD + "its values of 16 bits are all below 4096, and become nearly black",
    ),
    inspect(
        "an animated GIF",
        content(animation("GIF", 3, SIZE)),
        f"warning: images that training reads only in part: 1 ({FIRST}: it is an "
        "animation, and only the first of its 3 images is read)",
        0,
    ),
    inspect(
        "a TIFF of two pages",
        content(tiff(pixels(size=SIZE), pages=2)),
        f"warning: images that training reads only in part: 1 ({FIRST}: it has 2 ",
        0,
    ),
    predict("a JPEG cut short", "x.jpg", then(photograph, cut), "it is damaged: "),
    predict(
        "a JPEG whose end is zeros",
        "x.jpg",
        then(photograph, zeros),
        "it is damaged: its end is missing",
    ),
    predict("a PNG cut short", "x.png", then(photograph, cut), "it cannot be decoded"),
    predict("an empty file", "x.jpg", content(""), "it is empty"),
    predict("text named .jpg", "x.jpg", TEXT, "it is a web page (HTML): download the"),
    predict(
        "an image of 200000 x 200000 pixels",
        "x.png",
        huge(200000),
        "40,000,000,000 pixels, and the most are 178,956,970: cut it into tiles",
    ),
    Case(
        *("predict", "an image of 1 pixel"),
        lambda t: [checkpoint(t, "seg"), one_pixel(t), "--out", "out"],
        "files predicted: 1, in .../out",
        *(0, ("out",)),
    ),
    predict(
        "an image of 20000 x 1 pixels",
        "x.png",
        blank(size=(20000, 1)),
        "20000 x 1 pixels: one side is more than 100 times the other",
    ),
    predict(
        "a TIFF of floats",
        "x.tif",
        content(tiff(pixels(3, np.float32))),
        "its pixels are floats of 32 bits: save it as a PNG of 8 bits, with one range",
    ),
    Case(
        *("predict", "a folder with other files and subfolders"),
        lambda t: [checkpoint(t, "seg"), folder_of_everything(t), "--out", "out"],
        "left out: files that are not read as images or videos: 2 (in/a.json, in/b.txt)"
        "... left out: subfolders (to take their files, write 'FOLDER/**/*'): 1 (in/s"
        "... note: moving.gif: an animation is predicted as a video"
        "... files predicted: 2, in .../out",
        *(0, ("out",)),
    ),
    Case(
        *("predict", "an image on the internet"),
        lambda t: [checkpoint(t, "seg"), "https://127.0.0.1/a.jpg", "--out", "out"],
        "https://127.0.0.1/a.jpg is the address of a file elsewhere: download it",
    ),
    Case(
        *("predict", "a COCO file instead of its images"),
        lambda t: [checkpoint(t, "seg"), write(t / "coco.json", "{}"), "--out", "out"],
        "no file could be predicted: .../coco.json: it is text, not an image",
    ),
    predict("a pipe (FIFO)", "x.png", os.mkfifo, "it is a pipe (FIFO)"),
    predict(
        "a link to a device",
        "x.png",
        lambda file: file.symlink_to("/dev/zero"),
        "it is a device",
    ),
    predict("a pipe named .mp4", "x.mp4", os.mkfifo, "it is a pipe (FIFO)"),
    predict(
        "a playlist named .mp4",
        "x.mp4",
        content("#EXTM3U\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"),
        "it cannot be decoded as a video",
    ),
    predict(
        "a damaged video",
        "x.mp4",
        content(b"\0\0\0\x18ftypmp42" + bytes(500)),
        "it cannot be decoded as a video",
    ),
    Case(
        *("predict", "nothing that can be read"),
        lambda t: [checkpoint(t, "seg"), TEXT(t / "x.jpg"), "--out", "out"],
        "no file could be predicted: .../x.jpg: it is a web page (HTML): download the",
    ),
]
