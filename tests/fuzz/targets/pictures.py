"""Reads image files and videos, as the checks and ``predict`` do."""

import functools
import io
import shutil
import tempfile
from pathlib import Path
from random import Random

import cv2
import numpy as np
import PIL.Image
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, DefaultScope

from convnext_dense.commands.predict.decoding import Video
from convnext_dense.commands.predict.inputs import find
from convnext_dense.commands.predict.predictor import Predictor
from convnext_dense.errors import InputError
from convnext_dense.reports.drawing import DRAWING
from convnext_dense.utils.images import read_images, read_rgb

from ..case import Files, Link, Pipe
from ..mutations import images, plain_bytes, values
from .target import Target

_FORMATS = dict(png="PNG", jpg="JPEG", tif="TIFF", bmp="BMP", webp="WEBP", gif="GIF")


@functools.cache
def _image_seeds() -> list[Files]:
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 4), np.uint8)
    seeds: list[Files] = []
    for suffix, name in _FORMATS.items():
        for mode in ("RGB", "L", "P", "RGBA", "I;16"):
            picture = PIL.Image.fromarray(noise, "RGBA")
            if mode == "I;16":
                picture = PIL.Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
            else:
                picture = picture.convert(mode)
            stream = io.BytesIO()
            try:
                picture.save(stream, name)
            except (OSError, ValueError, KeyError):  # not every format has each mode
                continue
            seeds.append({f"a.{suffix}": stream.getvalue()})
    return seeds


@functools.cache
def _image_corpus() -> list[bytes]:
    return [content for files in _image_seeds() for content in files.values()]


def _mutate_image(files: Files, rng: Random) -> Files:
    ((name, content),) = files.items()
    if not isinstance(content, bytes):
        return files
    if rng.random() < 0.02:
        return {name: rng.choice((Pipe(), Link("/dev/zero"), Link("/"), b""))}
    if rng.random() < 0.03:
        return {values.word(rng)[:100] + Path(name).suffix: content}
    if rng.random() < 0.03:
        return {f"a.{rng.choice(list(_FORMATS))}": content}
    return {name: images.change(content, rng, _image_corpus())}


class _Reader(Predictor):
    """The part of ``predict`` that reads images, without a model."""

    def __init__(self) -> None:
        import mmseg.datasets  # noqa: F401  (registers the transforms)

        self.scope = "mmseg"
        with DefaultScope.overwrite_default_scope(self.scope):
            self._loader = TRANSFORMS.build(dict(type="LoadImageFromFile"))
            self._pipeline = Compose([dict(type="PackSegInputs")])
        self._as_colors = True
        self._pixel_bytes = DRAWING


@functools.cache
def _reader() -> _Reader:
    return _Reader()


def _read_image(folder: Path) -> None:
    """Check and decode the image as training data, and as an input of ``predict``."""
    path = next(iter(sorted(folder.iterdir())), None)
    if path is None:
        return
    (image,) = read_images([path], "").values()
    refused: Exception | None = None
    if image.error:
        refused = InputError(image.error)
    else:
        rgb = read_rgb(path)
        if rgb.shape[1::-1] not in (image.stored, image.shown):
            raise AssertionError(f"the header says {image.stored}, decoded {rgb.shape}")
    try:
        for source in find([str(path)], folder.parent / "out").sources:
            _reader().read(source.path, 1)
    except InputError as error:
        refused = error
    except Exception as error:  # predict reports whatever a decoder raises
        refused = InputError(str(error)[:1000])
    if refused:
        raise refused


@functools.cache
def _video_seeds() -> list[Files]:
    folder = tempfile.mkdtemp()
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 48, 3), np.uint8)
    seeds: list[Files] = []
    for name, codec in (("v.avi", "MJPG"), ("v.mp4", "mp4v")):
        path = f"{folder}/{name}"
        code = cv2.VideoWriter.fourcc(*codec)
        writer = cv2.VideoWriter(path, code, 5, (48, 32))
        for frame in frames:
            writer.write(frame)
        writer.release()
        content = Path(path).read_bytes()
        if content:  # not every OpenCV can write each format
            seeds.append({name: content})
    shutil.rmtree(folder)
    return seeds


def _mutate_video(files: Files, rng: Random) -> Files:
    ((name, content),) = files.items()
    if not isinstance(content, bytes):
        return files
    if rng.random() < 0.02:
        return {name: rng.choice((Pipe(), Link("/dev/zero"), b""))}
    corpus = [seed for files in _video_seeds() for seed in files.values()]
    return {name: plain_bytes.change(content, rng, corpus)}


def _read_video(folder: Path) -> None:
    path = next(iter(sorted(folder.iterdir())))
    find([str(path)], folder.parent / "out")
    for _ in Video(path):
        pass


TARGETS_HERE = (
    Target("image", _image_seeds, _mutate_image, _read_image, share=2, memory=1000),
    Target("video", _video_seeds, _mutate_video, _read_video, memory=600),
)
