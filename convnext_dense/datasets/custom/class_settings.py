"""Sets everything in a model's config that depends on the classes of the data.

``use_classes`` sets, in every head:

num_classes                 the number of classes, stated or by the head's default
num_things_classes          the number of classes; num_stuff_classes stays 0
out_channels                of mmseg's heads, which may have one channel for two classes
class_weight, alpha, ...    lists with a number for each class (``PER_CLASS``)
vocabulary, dataset_name    the names of the classes, of a text encoder

The sections are those that the stock configs of MMDetection 3.3 and MMSegmentation 1.2
have.
"""

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import MODELS, Registry

from convnext_dense.errors import InputError
from convnext_dense.utils.text import few

# Sections of a model whose num_classes is not the number of classes of the data.
OTHER_CLASSES = ("backbone", "rpn_head", "data_preprocessor")
# STDC's head divides pixels into edges and others.
BINARY_HEADS = ("STDCHead",)
# Settings that may be a list with a number for each class.
PER_CLASS = ("class_weight", "alpha", "pos_weight", "score_thr", "threshold")


def use_classes(cfg: Config, classes: Sequence[str]) -> None:
    """Make the model of ``cfg`` one for ``classes``.

    A list with a number for each class follows if all classes have the same number,
    as in Mask2Former, where only the last, of no object, differs. Different numbers
    were chosen for classes, so a list of them stays if it has a number for each class
    of the data. Any other list is an error, not left out: the config's weights would
    be lost, and the length does not show whether a user or a stock config wrote it.

    Raises:
        InputError: the model has no classes to set, or lists have numbers for other
            classes.
    """
    with MODELS.switch_scope_and_registry(cfg.default_scope) as registry:
        sections = [
            (path, section, _classes_of(section, registry))
            for path, section in _sections("model", cfg.model)
        ]
    counts = Counter(before for *_, before in sections if before)
    if not counts:
        raise InputError(
            f"{cfg.filename}: its model has no num_classes, so the number of classes "
            "of the data cannot be set: use a config whose heads have num_classes"
        )
    _fit_lists(cfg, sections, counts.most_common(1)[0][0], classes)
    for path, section, before in sections:
        if before:
            _set_number(path, section, before, len(classes), cfg.default_scope)
        if path.endswith(".text_encoder"):
            section.pop("dataset_name", None)
            section["vocabulary"] = list(classes)


def _fit_lists(
    cfg: Config,
    sections: Sequence[tuple[str, dict, int | None]],
    most_common: int,
    classes: Sequence[str],
) -> None:
    """Fit every list that has a number for each class.

    Args:
        sections: path, section, and its number of classes so far.
        most_common: that of lists outside of heads.

    Raises:
        InputError: lists have numbers for other classes.
    """
    misfits = []
    for path, section, _ in sections:
        before = _number_above(path, sections) or most_common
        for key in filter(section.__contains__, PER_CLASS):
            values = section[key]
            if not _is_list_of_numbers(values):
                continue
            if key != "class_weight" and len(values) not in (before, before + 1):
                continue  # not a list of a number for each class
            fitted = _fitted_list(values, before, len(classes))
            if fitted is None:
                misfits.append((f"{path}.{key}", len(values)))
                continue
            section[key] = fitted
            if fitted == list(values) and len(set(fitted[: len(classes)])) > 1:
                print_log(
                    f"{path}.{key} keeps its numbers, in the order of the classes: "
                    f"{few(classes)}",
                    "current",
                )
    if misfits:
        raise InputError(_misfits_message(cfg, misfits, classes))


def _sections(path: str, node: Any) -> Iterator[tuple[str, dict]]:
    """Path and section of every dict whose classes are those of the data."""
    if isinstance(node, dict):
        if node.get("type") in BINARY_HEADS:
            return
        yield path, node
        for key, child in node.items():
            if key not in OTHER_CLASSES:
                yield from _sections(f"{path}.{key}", child)
    elif isinstance(node, list | tuple):
        for i, child in enumerate(node):
            yield from _sections(f"{path}.{i}", child)


def _classes_of(section: Mapping, registry: Registry) -> int | None:
    """The number of classes that a section states or has by default."""
    number = section.get("num_classes", section.get("num_things_classes"))
    if number is None and isinstance(section.get("type"), str):
        number = _default_number(registry.get(section["type"]))
    return number if isinstance(number, int) and number > 0 else None


def _default_number(model_type: object) -> int | None:
    """The default of ``num_classes`` in a class's constructor.

    Defaults of 1 and less do not mean the classes of the data.
    """
    for base in getattr(model_type, "__mro__", ()):
        constructor = vars(base).get("__init__")
        parameters = inspect.signature(constructor).parameters if constructor else {}
        if "num_classes" in parameters:
            default = parameters["num_classes"].default
            return default if isinstance(default, int) and default > 1 else None
    return None


def _number_above(
    path: str, sections: Sequence[tuple[str, dict, int | None]]
) -> int | None:
    """The number of classes of the innermost section around ``path`` that has one."""
    numbers = [
        number
        for outer, _, number in sections
        if number and f"{path}.".startswith(f"{outer}.")
    ]
    return numbers[-1] if numbers else None


def _is_list_of_numbers(values: object) -> bool:
    return isinstance(values, list | tuple) and all(
        isinstance(value, int | float) for value in values
    )


def _fitted_list(values: Sequence, before: int, number: int) -> list | None:
    """A list with a number for each class, for another number of classes.

    Args:
        values: one for each class, and perhaps one more for 'no object'.
        before: the number of classes that the config states.
        number: the number of classes of the data.

    Returns:
        The list for ``number`` classes; None if that cannot be known.

    >>> _fitted_list([1.0, 1.0, 1.0, 0.1], before=3, number=5)
    [1.0, 1.0, 1.0, 1.0, 1.0, 0.1]
    >>> _fitted_list([0.5, 2.0], before=3, number=2)
    [0.5, 2.0]
    """
    of_classes, others = list(values[:before]), list(values[before:])
    if len(of_classes) == before and len(others) <= 1 and len(set(of_classes)) == 1:
        return of_classes[:1] * number + others
    if len(values) in (number, number + 1):
        return list(values)
    # A stock config may state the weights for the classes of another stock config.
    if len(values) != before and len(set(values[:-1])) == 1 and values[-1] < values[0]:
        return [values[0]] * number + [values[-1]]
    return None


def _misfits_message(
    cfg: Config, misfits: Sequence[tuple[str, int]], classes: Sequence[str]
) -> str:
    """The message about lists with numbers for other classes, with a way out.

    Args:
        misfits: path and length of each list.
    """
    options = " ".join(
        f"{path}={'None' if path.endswith('class_weight') else 'NUMBER'}"
        for path, _ in misfits
    )
    lengths = ", ".join(f"{path} has {length}" for path, length in misfits)
    return (
        f"{cfg.filename} has numbers for each of its own classes, and the data has "
        f"{len(classes)} ({few(classes)}): {lengths}. For equal weights: --cfg-options "
        f"{options}. For others, give lists of {len(classes)} numbers"
    )


def _set_number(path: str, section: dict, before: int, number: int, scope: str) -> None:
    """Set the number of classes of one section, and its output channels.

    Args:
        before: its number of classes so far.
    """
    if "num_things_classes" in section:
        section["num_things_classes"] = number
        section["num_stuff_classes"] = 0
    if "num_classes" in section or "num_things_classes" not in section:
        section["num_classes"] = number
    if scope != "mmseg" or section.get("out_channels") not in (1, before):
        return  # Mask2Former's out_channels are those of its masks
    if section["out_channels"] == 1 and number == 2:
        return
    if section["out_channels"] == 1:
        print_log(
            f"{path}: one output channel is for two classes; it has {number} now",
            "current",
        )
        section.pop("threshold", None)
    section["out_channels"] = number
