"""The everyday flags of ``train`` and ``test``, such as ``--batch-size``.

Each stands for settings of the config: ``--lr 1e-4`` is ``--cfg-options
optim_wrapper.optimizer.lr=1e-4``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.config import Config

from convnext_dense.errors import InputError
from convnext_dense.utils.text import few

from . import image_size
from .sections import MISSING, setting

LEARNING_RATE = "optim_wrapper.optimizer.lr"


class CommandLine(NamedTuple):
    """What a command line changes in a config.

    Attributes:
        settings: of ``--cfg-options`` and the everyday flags, by their keys with dots.
        lines: for the log; each says what a flag changed.
    """

    settings: Mapping[str, Any] = {}
    lines: Sequence[str] = ()


NOTHING = CommandLine()


def use_flags(
    cfg: Config,
    flags: Mapping[str, Any],
    options: Mapping[str, object],
    splits: Sequence[str],
) -> CommandLine:
    """Apply the everyday flags to a config.

    Args:
        cfg: as ``load_config`` returns it; it is changed.
        flags: values by their names without dashes: ``batch_size``, ``lr``,
            ``workers``, ``seed``, ``image_size`` and ``load_from``. None stands for a
            flag that was not used.
        options: the settings of ``--cfg-options``.
        splits: the splits that the command uses, the one of its work first.

    Returns:
        The settings of ``options`` and of the flags, and a line for each flag.

    Raises:
        InputError: the config has nothing that a flag could change, or
            ``--cfg-options`` sets the same.
    """
    settings = dict(options)
    lines = []
    for name, value in flags.items():
        if value is None:
            continue
        flag = "--" + name.replace("_", "-")
        new = _settings(cfg, flag, value, splits)
        _check_conflict(flag, new, options)
        lines.append(_line(cfg, flag, new))
        cfg.merge_from_dict(new)
        settings |= new
    return CommandLine(settings, lines)


def _settings(
    cfg: Config, flag: str, value: Any, splits: Sequence[str]
) -> dict[str, Any]:
    """The settings that a flag stands for."""
    loader = f"{splits[0]}_dataloader"
    if flag in ("--batch-size", "--workers", "--image-size") and not isinstance(
        cfg.get(loader), Mapping
    ):
        raise InputError(f"{flag}: {cfg.filename} has no section {loader}")
    if flag == "--batch-size":
        return {f"{loader}.batch_size": value}
    if flag == "--lr":
        if setting(cfg, LEARNING_RATE) is MISSING:
            raise InputError(
                f"--lr: {cfg.filename} has no {LEARNING_RATE}; set the rates of its "
                "optimizers with --cfg-options"
            )
        return {LEARNING_RATE: value}
    if flag == "--workers":
        return _workers(cfg, value, splits)
    if flag == "--seed":
        return {"randomness.seed": value}
    if flag == "--image-size":
        return image_size.settings(cfg, value, splits)
    return {"load_from": value}


def _workers(cfg: Config, workers: int, splits: Sequence[str]) -> dict[str, Any]:
    """``num_workers`` of the dataloaders, and what PyTorch refuses without workers."""
    settings: dict[str, Any] = {}
    for split in splits:
        loader = cfg.get(f"{split}_dataloader")
        if not isinstance(loader, Mapping):
            continue
        settings[f"{split}_dataloader.num_workers"] = workers
        if workers == 0 and loader.get("persistent_workers"):
            settings[f"{split}_dataloader.persistent_workers"] = False
        if workers == 0 and loader.get("prefetch_factor"):
            settings[f"{split}_dataloader.prefetch_factor"] = None
    return settings


def _check_conflict(
    flag: str, settings: Mapping[str, Any], options: Mapping[str, object]
) -> None:
    """Raise an InputError if ``--cfg-options`` sets what a flag sets."""
    for key in settings:
        for option in options:
            if f"{key}.".startswith(f"{option}.") or option.startswith(f"{key}."):
                raise InputError(
                    f"{flag} sets {key}, and so does --cfg-options {option}: leave one "
                    "of them out"
                )


def _line(cfg: Config, flag: str, settings: Mapping[str, Any]) -> str:
    """What a flag changes, with the values of before."""
    changes = []
    for key, new in settings.items():
        old = setting(cfg, key)
        before = "not set" if old is MISSING else old
        changes.append(f"{key} = {new} (was {before})")
    return f"{flag}: {few(changes)}"


def linear_rule(cfg: Config, images: int) -> str | None:
    """What the log says of a learning rate that is not for this batch size.

    Args:
        images: in a step, of all processes.

    Returns:
        None if the config does not say for which batch size its rate is, or the rate
        is for this one or is scaled.
    """
    scaling = cfg.get("auto_scale_lr") or {}
    base, rate = scaling.get("base_batch_size"), setting(cfg, LEARNING_RATE)
    if not base or scaling.get("enable") or base == images or rate is MISSING:
        return None
    return (
        f"the learning rate stays {rate:g}, which is for {base} images a step. For "
        f"{images}, the linear rule gives {rate * images / base:g}: --auto-scale-lr "
        "uses it"
    )
