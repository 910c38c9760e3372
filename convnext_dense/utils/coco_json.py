"""Read a COCO annotation file."""

from pathlib import Path

from convnext_dense.errors import InputError

from . import annotation_formats
from .json_files import read_json
from .text import few

_LISTS = ("images", "annotations", "categories")


def read_coco(path: Path) -> dict:
    """Read a COCO annotation file.

    Returns:
        Its content, with the lists ``images``, ``annotations`` and ``categories``.
        Only the first is sure to have entries, and no entry is checked.

    Raises:
        InputError: the file cannot be read, is of another format, has two lists
            of one name, or has no images.
    """
    try:
        content = read_json(path, once=_LISTS)
    except InputError as error:
        other = annotation_formats.of_folder(path) or annotation_formats.of_file(path)
        if other is None:
            raise
        raise InputError(str(other)) from error
    annotation_formats.refuse_other_formats(path, content)
    if not isinstance(content, dict):
        raise InputError(
            f"{path} is not a COCO annotation file: it holds a {type(content).__name__}"
        )
    for key in _LISTS:
        if not isinstance(content.get(key), list):
            what = (
                f"its {key} are a {type(content[key]).__name__}, not a list"
                if key in content
                else f"it has no list of {key}; its keys are "
                f"{few(content, 8) or 'none'}"
            )
            raise InputError(f"{path} is not a COCO annotation file: {what}")
    if not content["images"]:
        raise InputError(f"{path} has no images")
    return content
