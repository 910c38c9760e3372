"""Checks that a model's heads and losses are for the classes of the training data."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

# The names in a model of heads with a score for each class of the data. Others have
# classes of their own: rpn_head, and semantic_head for what is no object.
HEADS = (
    *("bbox_head", "mask_head", "decode_head", "auxiliary_head", "panoptic_head"),
    *("panoptic_fusion_head", "point_head", "mask_iou_head", "glbctx_head"),
    *("kernel_generate_head", "kernel_update_head"),
)
# Heads by these names whose classes are not the data's: edges of classes, and texts.
OTHER_CLASSES = ("STDCHead", "GroundingDINOHead", "ATSSVLFusionHead")


def problem(model: nn.Module, dataset: object) -> str | None:
    """The first head or loss that does not fit the classes of the data, and why.

    Returns:
        A message that says what to do; None if all fit.
    """
    meta = getattr(dataset, "metainfo", {})
    classes = meta.get("classes")
    if isinstance(classes, str):
        return (
            f"the data set's metainfo.classes is the string {classes!r}; for a "
            f"single class, write ({classes!r},)"
        )
    for name, head in _heads(model):
        message = (
            _number(name, head, meta)
            or _channels(name, head)
            or _weights(name, head, classes)
        )
        if message:
            return message
    return None


def _heads(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Name and module of each head that classifies."""
    for name, module in model.named_modules():
        # bbox_head.0, ... are the heads of a cascade.
        last = next((p for p in reversed(name.split(".")) if not p.isdigit()), "")
        if last in HEADS and type(module).__name__ not in OTHER_CLASSES:
            yield name, module


def _number(name: str, head: Any, meta: Mapping) -> str | None:
    """Checks the number of classes of a head."""
    # Panoptic data sets name the classes of things and of stuff, too. A head that does
    # not divide its classes has those of things.
    divided = hasattr(head, "num_things_classes")
    things = "thing_classes" in meta and not divided
    for setting, key in dict(
        num_things_classes="thing_classes",
        num_stuff_classes="stuff_classes",
        num_classes="thing_classes" if things else "classes",
    ).items():
        count, classes = getattr(head, setting, None), meta.get(key)
        if divided and setting == "num_classes":
            setting = "num_things_classes + num_stuff_classes"
        if isinstance(count, int) and classes is not None and count != len(classes):
            listed = ", ".join(map(str, classes[:5]))
            return (
                f"{name} has {count} classes and the training data {len(classes)} "
                f"({listed}{', ...' if len(classes) > 5 else ''}): set "
                f"{setting}={len(classes)} of each head, or metainfo.{key} of each "
                "data set"
            )
    return None


def _channels(name: str, head: Any) -> str | None:
    """Checks that a head of one output channel has losses with a sigmoid.

    A softmax over one channel is 1 whatever the weights: nothing is learnt.
    """
    if getattr(head, "out_channels", None) != 1 or not hasattr(head, "loss_decode"):
        return None
    for loss_name, loss in _losses(head):
        binary = getattr(loss, "loss_type", "binary") == "binary"
        if not getattr(loss, "use_sigmoid", True) or not binary:
            setting = "loss_type='binary'" if not binary else "use_sigmoid=True"
            return (
                f"{name} has one output channel, and its {loss_name} "
                f"({type(loss).__name__}) compares channels: set {setting} of the "
                "loss, or out_channels=2 of the head"
            )
    return None


def _weights(name: str, head: Any, classes: Any) -> str | None:
    """Checks that the losses of a head have a weight for each of its scores."""
    scores = _scores(head)
    if scores is None:
        return None
    for loss_name, loss in _losses(head):
        weights: Any = getattr(loss, "class_weight", None)
        if not hasattr(weights, "__len__"):  # None, or a number for all classes
            continue
        length = len(weights)
        if length != scores:
            background = len(classes or ()) == scores - 1
            return (
                f"{name}.{loss_name}.class_weight has {length} numbers, and {name} has "
                f"{scores} scores{' with that of no object' if background else ''}: "
                f"give {scores} numbers, or class_weight=None for equal weights"
            )
    return None


def _losses(head: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of each loss of a head's classes, without those of its heads."""
    for name, child in head.named_children():
        if name.startswith(("loss_decode", "loss_cls")):
            if isinstance(child, nn.ModuleList):
                yield from ((f"{name}.{i}", loss) for i, loss in enumerate(child))
            else:
                yield name, child


def _scores(head: Any) -> int | None:
    """The number of scores that the losses of a head get; None if it is not known."""
    if type(head).__name__ == "SideAdapterCLIPHead":  # its losses differ in scores
        return None
    for name in ("cls_embed", "fc_cls"):  # MaskFormer and Mask2Former; other detectors
        classifier = getattr(head, name, None)
        if isinstance(classifier, nn.Linear):
            return classifier.out_features
    key = "out_channels" if hasattr(head, "loss_decode") else "cls_out_channels"
    return getattr(head, key, None)
