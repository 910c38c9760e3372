"""Writes HTML pages of one file each, which need no network and no scripts.

The Jinja templates are beside this module; all of them extend ``base.html``.
"""

import base64
import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import jinja2
import numpy as np
from markupsafe import Markup

from convnext_dense.errors import InputError, written_out
from convnext_dense.utils import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GENERATOR = b'<meta name="generator" content="convnext_dense">'  # in base.html


def _shown(value: object) -> object:
    """A value of a template; in text and paths, what does not show is escaped.

    Names may have lone surrogates, which no file can hold, and characters that turn
    the direction of the text around them.
    """
    if isinstance(value, Markup) or not isinstance(value, str | os.PathLike):
        return value
    return "\n".join(written_out(line) for line in str(value).split("\n"))


_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    finalize=_shown,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write(file: str | os.PathLike, template: str, **values) -> None:
    """Render a template into ``file``, completely or not at all.

    Args:
        template: the name of a file beside this module.
        values: the variables of the template.

    Raises:
        InputError: the file cannot be written.
    """
    page = _templates.get_template(template).render(**values)
    with files.whole(file) as partial:
        partial.write_text(page, encoding="utf-8")


def is_ours(file: str | os.PathLike) -> bool:
    """Whether a file is a page that ``write`` wrote, by its first lines."""
    try:
        with files.open_regular(file) as page:
            return _GENERATOR in page.read(500)
    except InputError:  # there is no such file
        return False


def figure(figure: "Figure") -> Markup:
    """A matplotlib figure as an image element, in SVG.

    Text stays text, and not outlines: browsers have fonts for every script.
    """
    import matplotlib  # slow to import

    svg = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return _image("svg+xml", svg.getvalue())


def picture(image: np.ndarray, max_side: int = 640) -> Markup:
    """An image (H, W, 3) RGB uint8 as an image element, in JPEG.

    Args:
        max_side: pixels of its longer side, to which larger images are scaled down.
    """
    scale = max_side / max(image.shape[:2])
    if scale < 1:
        size = [max(1, round(scale * side)) for side in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    bgr = np.ascontiguousarray(image[..., ::-1])
    _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return _image("jpeg", jpeg.tobytes())


def _image(subtype: str, content: bytes) -> Markup:
    """An image element that contains a file of type image/``subtype``."""
    data = base64.b64encode(content).decode()
    return Markup('<img src="data:image/{};base64,{}" alt="">').format(subtype, data)
