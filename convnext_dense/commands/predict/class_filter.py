"""Keeps the predictions of some classes: ``--classes``."""

from collections.abc import Sequence

import torch
from mmengine.structures import BaseDataElement

from convnext_dense.config.checks.names import near
from convnext_dense.errors import InputError
from convnext_dense.utils.text import few

PANOPTIC_OFFSET = 1000  # mmdet's INSTANCE_OFFSET: id = label + 1000 * instance


def labels_of(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The labels of the classes that ``--classes`` names.

    Raises:
        InputError: the model has no class of that name. The message has similar ones.

    >>> labels_of(["cat"], ["dog", "cat"])
    [1]
    """
    unknown = [name for name in names if name not in classes]
    for name in unknown:
        similar = near(name, classes, 0.6)
        meant = f": did you mean {' or '.join(similar)}?" if similar else "."
        raise InputError(
            f"--classes: the model has no class {name}{meant} It has {few(classes, 10)}"
        )
    return [label for label, name in enumerate(classes) if name in names]


def keep_classes(
    sample: BaseDataElement, labels: Sequence[int], number: int
) -> BaseDataElement:
    """A data sample of mmdet with the objects and segments of some classes alone.

    Args:
        labels: of those classes.
        number: how many classes the model has; of pixels without a segment it is the
            label.
    """
    kept, sample = torch.tensor(labels), sample.new()
    if "pred_instances" in sample:
        instances = sample.pred_instances
        sample.pred_instances = instances[torch.isin(instances.labels, kept)]
    if "pred_panoptic_seg" in sample:
        segments = sample.pred_panoptic_seg.clone()
        other = ~torch.isin(segments.sem_seg % PANOPTIC_OFFSET, kept)
        segments.sem_seg = segments.sem_seg.masked_fill(other, number)
        sample.pred_panoptic_seg = segments
    return sample
