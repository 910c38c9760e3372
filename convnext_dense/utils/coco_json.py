"""Read a COCO annotation file."""

import json
from pathlib import Path

from convnext_dense.errors import InputError


def read_coco(path: Path) -> dict:
    """The content of a COCO annotation file, with lists of images, annotations and
    categories.

    Raises:
        InputError: it is not one, or has no images.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path} is not a COCO annotation file: it holds a {type(content).__name__}"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise InputError(
                f"{path} is not a COCO annotation file: it has no list of {key}, only "
                f"{', '.join(content) or 'nothing'}"
            )
    if not content["images"]:
        raise InputError(f"{path} has no images")
    return content
