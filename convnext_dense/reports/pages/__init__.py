"""HTML pages in one file: they open from disk, with no network and no script.

Templates are Jinja's, beside this file; ``base.html`` has the look of them all.
"""

import base64
import io
import os
from pathlib import Path

import cv2
import jinja2
import numpy as np
from markupsafe import Markup

from convnext_dense.utils import files

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write(file: str | os.PathLike, template: str, **values) -> None:
    """Render ``template`` with ``values`` into ``file``, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    page = _templates.get_template(template).render(**values)
    with files.whole(file) as partial:
        partial.write_text(page, encoding="utf-8")


def figure(figure) -> Markup:
    """A matplotlib Figure as an image element, drawn by vectors."""
    svg = io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    return _image("svg+xml", svg.getvalue())


def picture(image: np.ndarray, max_side: int = 640) -> Markup:
    """An RGB uint8 array (H, W, 3) as an image element, scaled down to ``max_side``."""
    scale = max_side / max(image.shape[:2])
    if scale < 1:
        size = [max(1, round(scale * side)) for side in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    bgr = np.ascontiguousarray(image[..., ::-1])
    _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return _image("jpeg", jpeg.tobytes())


def _image(kind: str, content: bytes) -> Markup:
    data = base64.b64encode(content).decode()
    return Markup('<img src="data:image/{};base64,{}" alt="">').format(kind, data)
