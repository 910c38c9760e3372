"""Let mmengine load any checkpoint into a detector or segmentor with a ConvNeXt.

``load_from``, ``--resume``, the CHECKPOINT argument of the tools and the toolboxes'
inference all call two functions of mmengine: one reads the file, the other puts a state
dict into a model. ``read_safely`` replaces the first, ``load_any_origin`` the second.
Models without this package's ConvNeXt load as before.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from logging import Logger
from typing import Any

from mmengine import runner as mmengine_runner
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import nn

from convnext_dense.checkpoints.reading import read
from convnext_dense.checkpoints.unpickling import LeftOut, require_built
from convnext_dense.checkpoints.whole_models import match, with_source

# All of mmengine's patterns whose loader would unpickle by itself; "" is any other.
_SCHEMES = (
    *("", "http://", "https://", "modelzoo://", "torchvision://", "open-mmlab://"),
    *("openmmlab://", "mmcls://", "pavi://", r"(\S+\:)?s3://", r"(\S+\:)?petrel://"),
)

# What the tools and the toolboxes' inferencers take from a checkpoint's meta.
_USED_META = ("cfg", "dataset_meta", "CLASSES", "PALETTE")

_Check = Callable[[Any, str], Any]
_check: ContextVar[_Check | None] = ContextVar("check", default=None)


@contextmanager
def checked(check: _Check) -> Iterator[None]:
    """Give each checkpoint that mmengine reads inside to ``check``.

    Args:
        check: takes the content and its source, and returns the content to use.
    """
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def read_safely() -> None:
    """Make mmengine read every checkpoint by ``checkpoints.read``."""
    CheckpointLoader.register_scheme(_SCHEMES, load_from_convnext_dense, force=True)


def load_any_origin() -> None:
    """Make mmengine rename and check a ConvNeXt's tensors before it loads them."""
    plain = mmengine_checkpoint.load_state_dict
    if hasattr(plain, "__wrapped__"):  # installed already
        return

    @functools.wraps(plain)
    def load_state_dict(
        module: nn.Module,
        state_dict: Mapping,
        strict: bool = False,
        logger: Logger | str | None = None,
    ) -> None:
        matched = match(module, state_dict)
        for choice in matched.choices:
            choice.report()
        if matched.alone and not strict:  # mmengine would warn of each new tensor
            matched.model.load_state_dict(matched.weights, strict=False)
        else:
            plain(module, matched.weights, strict=strict, logger=logger or "current")

    mmengine_checkpoint.load_state_dict = load_state_dict
    mmengine_runner.load_state_dict = load_state_dict


def load_from_convnext_dense(filename: str, map_location: Any = None) -> Any:
    """The content of a checkpoint, with its source in the state dict's metadata.

    mmengine logs what follows ``load_from_`` in the name of this function.
    """
    content = read(filename, map_location)
    if str(filename).startswith("mmcls://"):
        content = mmengine_checkpoint._process_mmcls_checkpoint(content)
    check = _check.get()
    if check is not None:
        content = check(content, str(filename))
    if not isinstance(content, Mapping):
        return content
    weights, meta = content.get("state_dict"), content.get("meta")
    if isinstance(weights, LeftOut):  # of a subclass of dict
        weights = weights.items
    require_built(weights, "state_dict", filename)
    if isinstance(meta, Mapping):
        for key in _USED_META:
            require_built(meta.get(key), f"meta.{key}", filename)
    if isinstance(weights, Mapping):
        return {**content, "state_dict": with_source(weights, filename)}
    # mmengine takes the keys for the names of tensors.
    entries = {k: v for k, v in content.items() if isinstance(k, str)}
    entries.pop("state_dict", None)
    return with_source(entries, filename)
