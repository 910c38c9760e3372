"""Checks that a checkpoint fits a model, or says that it fits the config inside it.

A run writes its config into its checkpoints. With custom data that config has other
classes than the file with which the run was started.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from convnext_dense import checkpoints
from convnext_dense.config.embedded import embedded_config
from convnext_dense.errors import InputError

from .build import build_model


def require_whole(
    model: nn.Module, content: Mapping, source: str, config: str | None
) -> None:
    """Check that a checkpoint has every parameter of a model, in its shape.

    Args:
        model: built from ``config``.
        content: of the checkpoint.
        source: the checkpoint's name, for messages.
        config: the config that the user may leave out; None if it cannot be left out.

    Raises:
        InputError: it has not. The message says which config fits, if the one inside
            the checkpoint does.
    """
    weights = content.get("state_dict", content)
    try:
        checkpoints.require_whole(model, weights)
    except InputError as error:
        if not _fits_its_own(content, source):
            raise
        advice = f"leave out {config}" if config else _beside(source)
        raise InputError(
            f"{error}. The checkpoint fits the config of its run, which is inside it: "
            f"{advice}"
        ) from error


def _fits_its_own(content: Mapping, source: str) -> bool:
    """Whether a checkpoint has a config inside that its weights fit."""
    try:
        model = build_model(embedded_config(content, source))
        checkpoints.require_whole(model, content.get("state_dict", content))
    except InputError:
        return False
    return True


def _beside(source: str) -> str:
    """Which config to give: that in the folder of a local checkpoint, if it is one."""
    folder = Path(source).parent
    configs = sorted(folder.glob("*.py")) if os.path.isdir(folder) else []
    if len(configs) == 1:
        return f"give {configs[0]}"
    return "give the .py file that the run wrote into its work dir"
