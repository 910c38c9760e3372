"""Checks that a config has the sections it needs, and that its numbers make sense.

mmengine fails with a Python stack on some of these mistakes, and trains without a
message with others: it trains no epoch of -1, and accepts an infinite learning rate.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, TypeGuard

from mmengine.config import Config

from convnext_dense.errors import InputError

# The sections that a Runner needs together.
SECTIONS = {
    "train": ("train_dataloader", "train_cfg", "optim_wrapper"),
    "val": ("val_dataloader", "val_cfg", "val_evaluator"),
    "test": ("test_dataloader", "test_cfg", "test_evaluator"),
}
_VERBS = dict(train="train", val="validate", test="test")
# Setting, a whole number -> its least and its largest value. Larger numbers are slips:
# they would fill the memory, or start more processes than a machine can have.
_WHOLE = {
    "batch_size": (1, 100_000),
    "num_workers": (0, 1000),
    "max_epochs": (1, 10**9),
    "max_iters": (1, 10**9),
    "val_interval": (1, 10**9),
    "accumulative_counts": (1, 10**9),
}
MOST_CLASSES = 100_000
MOST_SIDE = 65_535  # pixels; the longest side of a JPEG
# An image is resized to fit into a scale, so that its smaller number counts. To a size
# it is padded.
_SIDES = {"scale": min, "img_scale": min, "size": max, "crop_size": max}
_FROM_ZERO = ("optimizer.lr", "optimizer.weight_decay")  # finite and not negative


def check(cfg: Config, splits: Sequence[str]) -> None:
    """Check the sections of ``splits`` and the numbers in them.

    Training may have no validation at all; then the sections of 'val' are not needed.

    Args:
        splits: those of 'train', 'val' and 'test' that will be used.

    Raises:
        InputError: a section is missing or is not a dict, or a number is out of range.
    """
    for split in splits:
        sections = {name: cfg.get(name) for name in SECTIONS[split]}
        if split == "val" and "train" in splits and not any(sections.values()):
            continue
        for name, section in sections.items():
            if section is None:
                raise InputError(
                    f"{cfg.filename} has no {name}: to {_VERBS[split]}, a config needs "
                    f"{', '.join(sections)}"
                )
            several = name.endswith("evaluator") and isinstance(section, list | tuple)
            if not (several or isinstance(section, Mapping)):
                raise InputError(f"{name} is {section!r}: it must be a section, dict()")
            _check_numbers(name, section)
        if not isinstance(cfg[f"{split}_dataloader"].get("dataset"), Mapping):
            raise InputError(f"{cfg.filename} has no {split}_dataloader.dataset")
        _check_sides(f"{split}_dataloader", cfg[f"{split}_dataloader"])
    _check_sides("model", cfg.model)
    for path, key, number in _leaves("model", cfg.model):
        if key == "num_classes" and _is_number(number) and number > MOST_CLASSES:
            raise InputError(
                f"{path}={number!r}: give a whole number from 1 to {MOST_CLASSES}"
            )
    seed = (cfg.get("randomness") or {}).get("seed")
    if seed is not None:
        _check_whole("randomness.seed", seed, 0, 2**32 - 1)


def _check_numbers(name: str, section: Any) -> None:
    """Raise an InputError if a number of ``section`` is out of range."""
    if not isinstance(section, Mapping):
        return
    for key, bounds in _WHOLE.items():
        if key in section:
            _check_whole(f"{name}.{key}", section[key], *bounds)
    for path in _FROM_ZERO:
        value = _inner(section, path)
        if value is not None and not (_is_number(value) and 0 <= value < math.inf):
            raise InputError(f"{name}.{path}={value!r}: give a finite number from 0 on")
    # It may be infinite: then the norm is logged, and nothing is clipped.
    max_norm = _inner(section, "clip_grad.max_norm")
    if max_norm is not None and not (_is_number(max_norm) and max_norm > 0):
        raise InputError(
            f"{name}.clip_grad.max_norm={max_norm!r}: give a number above 0"
        )


def _inner(section: Mapping, path: str) -> Any:
    """The setting at ``path``, 'SECTION.KEY', below a section; None without one."""
    inner_name, key = path.split(".")
    inner = section.get(inner_name)
    return inner.get(key) if isinstance(inner, Mapping) else None


def _check_whole(name: str, value: object, least: int, most: int) -> None:
    """Raise an InputError unless ``value`` is a whole number in these bounds."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name}={value!r}: give a whole number from {least} on")
    if value > most:
        raise InputError(f"{name}={value}: give a whole number from {least} to {most}")


def _check_sides(name: str, section: Mapping) -> None:
    """Raise an InputError if images would be resized or padded to absurd sizes."""
    for path, key, value in _leaves(name, section):
        if key in _SIDES:
            sides = value if isinstance(value, list | tuple) else [value]
            numbers = [side for side in sides if _is_number(side)]
            if numbers and _SIDES[key](numbers) > MOST_SIDE:
                raise InputError(
                    f"{path}={value!r}: images of more than {MOST_SIDE} pixels a side "
                    "cannot be trained on; give a smaller size"
                )


def _leaves(path: str, node: object) -> Iterator[tuple[str, str, object]]:
    """Path, key and value of each setting below ``node`` that is not a section."""
    if isinstance(node, Mapping):
        entries = list(node.items())
    elif isinstance(node, list | tuple):
        entries = [(str(i), entry) for i, entry in enumerate(node)]
    else:
        return
    for key, value in entries:
        yield f"{path}.{key}", key, value
        yield from _leaves(f"{path}.{key}", value)


def _is_number(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a real number, and not True or False."""
    return isinstance(value, Real) and not isinstance(value, bool)
