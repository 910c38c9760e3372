"""Keeps ``--cfg-options`` in a config that is fitted to custom data."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from convnext_dense.config import cfg_options
from convnext_dense.config.sections import setting

# Settings that use_data changes unless the command line sets them.
WINNERS = ("auto_scale_lr", "test_dataloader")
LENGTH = "train_cfg.max_epochs"


def take_epochs(
    options: Sequence[str], epochs: int | None
) -> tuple[list[str], int | None]:
    """Take ``train_cfg.max_epochs`` of ``--cfg-options`` for ``--epochs``.

    The schedule keeps its shape only if the config still has the length that its
    schedule is for.

    Args:
        options: KEY=VALUE texts.
        epochs: of ``--epochs``, which counts if both are there.

    Returns:
        The other options, and the number of epochs.

    Raises:
        InputError: an option cannot be read.

    >>> take_epochs(["train_cfg.max_epochs=3", "resume=True"], None)
    (['resume=True'], 3)
    """
    length = cfg_options.parse(options).get(LENGTH)
    if epochs is None and type(length) is int and length > 0:
        others = [text for text in options if not text.startswith(f"{LENGTH}=")]
        return others, length
    return list(options), epochs


def keep_settings(cfg: Config, settings: Mapping[str, Any]) -> None:
    """Set again what the command line sets, after ``cfg`` was fitted to its data.

    A warning names each setting that cannot be kept, because it follows from the data.

    Args:
        settings: of ``--cfg-options``, by their keys with dots.
    """
    kept = {
        key: value
        for key, value in settings.items()
        if key.startswith(WINNERS) and ".dataset" not in key
    }
    cfg.merge_from_dict(kept)
    for key, value in settings.items():
        if key.endswith("_delete_"):
            continue
        if key == "data_root" or setting(cfg, key) != value:
            print_log(
                f"--cfg-options {key} changes nothing: with custom data, it follows "
                "from the data and --epochs",
                "current",
                logging.WARNING,
            )
