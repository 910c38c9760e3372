"""Read a COCO annotation file."""

from pathlib import Path

from convnext_dense.errors import InputError

from .json_files import read_json
from .text import few

_LISTS = ("images", "annotations", "categories")


def read_coco(path: Path) -> dict:
    """Read a COCO annotation file.

    Returns:
        Its content, with the lists ``images``, ``annotations`` and ``categories``.
        Only the first is sure to have entries, and no entry is checked.

    Raises:
        InputError: the file cannot be read, is not a COCO file, has two lists of one
            name, or has no images.
    """
    content = read_json(path, once=_LISTS)
    if not isinstance(content, dict):
        raise InputError(
            f"{path} is not a COCO annotation file: it holds a {type(content).__name__}"
        )
    for key in _LISTS:
        if not isinstance(content.get(key), list):
            raise InputError(
                f"{path} is not a COCO annotation file: it has no list of {key}; its "
                f"keys are {few(content, 8) or 'none'}"
            )
    if not content["images"]:
        raise InputError(f"{path} has no images")
    return content
