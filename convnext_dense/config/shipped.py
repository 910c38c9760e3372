"""The configs that come with the package, by name."""

import difflib
import os
from pathlib import Path

from convnext_dense.errors import InputError
from convnext_dense.utils.text import few

SUFFIXES = (".py", ".json", ".yaml", ".yml")  # of config files
_PACKAGE = Path(__file__).resolve().parents[1]


def folder() -> Path:
    """The folder of the configs: in the installed package, or of the checkout."""
    installed = _PACKAGE / ".mim/configs"  # where mim looks, too
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def names() -> list[str]:
    """The configs' names, such as ``det/mask_rcnn_convnext_t_coco``, sorted."""
    files = folder().glob("[ds]e[tg]/*.py")
    return sorted(f"{file.parent.name}/{file.stem}" for file in files)


def is_config(text: str) -> bool:
    """Whether a text names a config: a file by its ending, or one of this package.

    What exists is a path, also if a config of this package has its name.

    >>> is_config("mask_rcnn_convnext_t_coco"), is_config("epoch_36.pth")
    (True, False)
    """
    return text.endswith(SUFFIXES) or (
        not os.path.exists(text) and _named(text) is not None
    )


def _named(config: str) -> str | None:
    stem = config.removesuffix(".py")
    for name in names():
        if stem in (name.partition("/")[2], name, f"configs/{name}"):
            return str(folder() / f"{name}.py")
    return None


def resolve(config: str) -> str:
    """The path of a config that a user names.

    Args:
        config: the path of a file; or the name of a config of this package, with or
            without its folder and ``.py``.

    Raises:
        InputError: it is neither.

    >>> Path(resolve("mask_rcnn_convnext_t_coco")).name
    'mask_rcnn_convnext_t_coco.py'
    """
    if Path(config).is_file():
        return config
    if path := _named(config):
        return path
    if Path(config).is_dir():
        inside = sorted(Path(config).glob("*.py"))
        advice = f". Give a file in it: {few(inside)}" if inside else ""
        raise InputError(f"no config at {config}: it is a folder{advice}")
    bare = [name.partition("/")[2] for name in names()]
    similar = difflib.get_close_matches(Path(config).stem, bare, n=3)
    meant = f"Did you mean {' or '.join(similar)}? " if similar else ""
    raise InputError(
        f"no config at {config}, and none of this name in the package. {meant}"
        "convnext-dense configs lists the names"
    )
