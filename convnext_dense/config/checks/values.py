"""Are the sections of a config there, and are its numbers such as can be meant?

What mmengine would stumble over with a stack, or train with in silence: -1 epochs are
none, and an infinite learning rate is no error to it.
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Real

from mmengine.config import Config

from convnext_dense.errors import InputError

# What a Runner takes together or not at all.
SECTIONS = {
    "train": ("train_dataloader", "train_cfg", "optim_wrapper"),
    "val": ("val_dataloader", "val_cfg", "val_evaluator"),
    "test": ("test_dataloader", "test_cfg", "test_evaluator"),
}
_TO = dict(train="train", val="validate", test="test")
_WHOLE = {  # setting -> the least it can be
    "batch_size": 1,
    "num_workers": 0,
    "max_epochs": 1,
    "max_iters": 1,
    "val_interval": 1,
    "accumulative_counts": 1,
}
_FROM_ZERO = ("optimizer.lr", "optimizer.weight_decay")  # finite numbers


def check(cfg: Config, splits: Sequence[str]) -> None:
    """Look at the sections for ``splits`` ('train', 'val', 'test') and their numbers.

    Training without validation may lack all of the latter's sections.

    Raises:
        InputError: one is missing or not a section, or a number cannot be meant.
    """
    for split in splits:
        sections = {name: cfg.get(name) for name in SECTIONS[split]}
        if split == "val" and "train" in splits and not any(sections.values()):
            continue
        for name, section in sections.items():
            if section is None:
                raise InputError(
                    f"{cfg.filename} has no {name}: to {_TO[split]} takes "
                    + " and ".join(sections)
                )
            kinds = Mapping | list | tuple if name.endswith("evaluator") else Mapping
            if not isinstance(section, kinds):
                raise InputError(f"{name} is {section!r}: it must be a section, dict()")
            _check_numbers(name, section)
        loader = sections[f"{split}_dataloader"]
        if not isinstance(loader.get("dataset"), Mapping):
            raise InputError(f"{cfg.filename} has no {split}_dataloader.dataset")
    seed = (cfg.get("randomness") or {}).get("seed")
    if seed is not None:
        _check_whole("randomness.seed", seed, 0)


def _check_numbers(name: str, section) -> None:
    if not isinstance(section, Mapping):
        return
    for key, least in _WHOLE.items():
        if key in section:
            _check_whole(f"{name}.{key}", section[key], least)
    for path in _FROM_ZERO:
        value = _inner(section, path)
        if value is not None and not (_is_number(value) and 0 <= value < math.inf):
            raise InputError(f"{name}.{path}={value!r}: give a number from 0 on")
    bound = _inner(section, "clip_grad.max_norm")  # infinite: the norm is logged
    if bound is not None and not (_is_number(bound) and bound > 0):
        raise InputError(f"{name}.clip_grad.max_norm={bound!r}: give one above 0")


def _inner(section: Mapping, path: str):
    part, key = path.split(".")
    inner = section.get(part)
    return inner.get(key) if isinstance(inner, Mapping) else None


def _check_whole(name: str, value, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name}={value!r}: give a whole number from {least} on")


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
