"""Read a COCO annotation file."""

import json
from pathlib import Path

from convnext_dense.errors import InputError


def read_coco(path: Path) -> dict:
    """Read a COCO annotation file.

    Returns:
        Its content, with the lists ``images``, ``annotations`` and ``categories``.
        Only the first is sure to have entries, and no entry is checked.

    Raises:
        InputError: the file cannot be read, is not a COCO file, or has no images.
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
                f"{path} is not a COCO annotation file: it has no list of {key}; its "
                f"keys are {', '.join(content) or 'none'}"
            )
    if not content["images"]:
        raise InputError(f"{path} has no images")
    return content
