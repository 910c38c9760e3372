"""Scales every image size of a config, for ``--image-size``.

A config has its size in many places: resizing, crops, mosaics and padding of each
pipeline, the padding of a data preprocessor, the windows of sliding inference. Recipes
rely on their ratios, such as crops of half the resized image. So all of them are scaled
by the same factors.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.config import Config

from convnext_dense.errors import InputError

# Settings of transforms that are sizes in pixels: (width, height), a list of them, or
# one number, the short side.
_RESIZING = ("scale", "scales", "img_scale", "size")
_CROPPING = "crop_size"  # (height, width)
_SIDES = ("height", "width")
_OTHERS = ("border", "max_size")  # around a mosaic, (height, width); the long side
SMALLEST = 32  # pixels: the stride of the last feature map
_EXAMPLES = "Resize, RandomResize, RandomChoiceResize, RandomCrop, Pad, ..."


class Sides(NamedTuple):
    """Height and width of an image in pixels, or a factor for each."""

    height: float
    width: float


def settings(cfg: Config, size: Sequence[int], splits: Sequence[str]) -> dict[str, Any]:
    """The settings that make ``cfg`` use another image size.

    The size of a config is that of the last step of its training pipeline that sets
    one; of several to choose from, the largest. It becomes ``size``, and all other
    sizes are scaled by the same factors.

    Args:
        size: the short side, or height and width.
        splits: the splits whose pipelines must have a size.

    Returns:
        New values by their keys with dots, as in ``--cfg-options``.

    Raises:
        InputError: a side is below ``SMALLEST``, or a pipeline of ``splits`` has no
            step with a size.
    """
    if min(size) < SMALLEST:
        raise InputError(
            f"--image-size {' '.join(map(str, size))}: a backbone's last feature map "
            f"has 1/{SMALLEST} of the image's sides: give {SMALLEST} or more"
        )
    steps = {
        split: list(_steps(loader.get("dataset"), f"{split}_dataloader.dataset"))
        for split in ("train", "val", "test")
        if isinstance(loader := cfg.get(f"{split}_dataloader"), Mapping)
    }
    old = {
        split: sizes[-1]
        for split, pipeline in steps.items()
        if (sizes := [largest for _, step in pipeline if (largest := _largest(step))])
    }
    for split in splits:
        # A training can have no validation.
        if split not in old and (split in steps or split == splits[0]):
            raise InputError(
                f"--image-size: the pipeline of {split}_dataloader in {cfg.filename} "
                f"has no step with a size ({_EXAMPLES}): add one to the config, or "
                "leave --image-size out"
            )
    height, width = next(iter(old.values()))
    if len(size) == 2:
        factors = Sides(size[0] / height, size[1] / width)
    else:
        factors = Sides(*(size[0] / min(height, width),) * 2)
    for name in ("tta_pipeline", "custom_hooks"):
        steps[name] = list(_steps(cfg.get(name), name))
    changes = {
        f"{path}.{name}": _scaled(step, name, factors)
        for pipeline in steps.values()
        for path, step in pipeline
        for name in _names(step)
    }
    return changes | _of_the_model(cfg.get("model") or {}, factors)


def _steps(node: Any, path: str) -> Iterator[tuple[str, Mapping]]:
    """Each transform below a node of the config, with its key."""
    if isinstance(node, Mapping):
        if "type" in node:
            yield path, node
        for key, value in node.items():
            yield from _steps(value, f"{path}.{key}")
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from _steps(value, f"{path}.{number}")


def _names(step: Mapping) -> list[str]:
    """The settings of a transform that are sizes in pixels."""
    if str(step.get("crop_type", "")).startswith("relative"):
        return []
    single = [n for n in (_CROPPING, *_SIDES, *_OTHERS) if _is_size(step.get(n))]
    return single + [name for name in _RESIZING if _are_sizes(name, step.get(name))]


def _are_sizes(name: str, value: Any) -> bool:
    """Whether a value is a size, or a list of them."""
    if _is_size(value):
        return True
    if not isinstance(value, list | tuple) or not value:
        return False
    numbers = name == "scales"  # which can be short sides
    return all(_is_size(v) and (numbers or not isinstance(v, int)) for v in value)


def _is_size(value: Any) -> bool:
    """Whether a value is one or two whole numbers, not 0."""
    if isinstance(value, list | tuple):
        return len(value) == 2 and all(type(side) is int and side for side in value)
    return type(value) is int and value != 0


def _largest(step: Mapping) -> Sides | None:
    """The largest size that a transform sets, if it sets one."""
    names = _names(step)
    if _CROPPING in names:
        crop = step[_CROPPING]
        return Sides(crop, crop) if isinstance(crop, int) else Sides(*crop)
    sizes = [size for name in _RESIZING if name in names for size in _all(step, name)]
    if sizes:
        return max(sizes, key=lambda size: (min(size), max(size)))
    if set(_SIDES) <= set(names):
        return Sides(*(step[name] for name in _SIDES))
    return None


def _all(step: Mapping, name: str) -> list[Sides]:
    """The sizes among which a resizing transform chooses."""
    sizes = []
    for value in _choices(name, step[name]):
        sides = (value, value) if isinstance(value, int) else value
        sizes.append(Sides(*(sides if _height_first(step, sides) else sides[::-1])))
    return sizes


def _choices(name: str, value: Any) -> Sequence:
    """The single sizes of a setting: numbers and pairs."""
    if isinstance(value, int) or (
        name != "scales" and all(isinstance(side, int) for side in value)
    ):
        return [value]
    return value


def _height_first(step: Mapping, pair: Sequence[int]) -> bool:
    """Whether a resizing transform's pair stands for height and width.

    It is (width, height). If images keep their aspect ratio, mmcv takes both orders,
    and mmdet's configs have (short side, long side).
    """
    return bool(step.get("keep_ratio")) and pair[0] < pair[1]


def _scaled(step: Mapping, name: str, factors: Sides) -> Any:
    """The new value of a transform's setting."""
    value = step[name]
    if name in ("width", "max_size"):
        return round(value * factors.width)
    if name not in _RESIZING:
        return _of_pair(value, factors)
    new = [
        _of_pair(
            size,
            factors
            if isinstance(size, int) or _height_first(step, size)
            else factors[::-1],
        )
        for size in _choices(name, value)
    ]
    return new if _choices(name, value) is value else new[0]


def _of_pair(value: Any, factors: Sequence[float]) -> Any:
    """A number times the first factor, or a pair of numbers times both."""
    if isinstance(value, int):
        if factors[0] == factors[1]:
            return round(value * factors[0])
        value = (value, value)
    return tuple(
        round(side * factor) for side, factor in zip(value, factors, strict=True)
    )


def _of_the_model(model: Mapping, factors: Sides) -> dict[str, Any]:
    """New values of the sizes that a model pads to and tests with."""
    changes = {}
    processor = model.get("data_preprocessor") or {}
    sections = {
        "data_preprocessor": (processor, ("size",)),
        "test_cfg": (model.get("test_cfg") or {}, ("crop_size", "stride")),
    }
    for number, step in enumerate(processor.get("batch_augments") or ()):
        path = f"data_preprocessor.batch_augments.{number}"
        sections[path] = step, ("size", "random_size_range")
    for path, (section, names) in sections.items():
        for name in names:
            if _is_size(section.get(name)):
                both = factors if name != "random_size_range" else factors[:1] * 2
                changes[f"model.{path}.{name}"] = _of_pair(section[name], both)
    return changes
