"""Checks before the first step that training can learn anything.

Each function returns a message that says what is wrong and what to do, or None.
"""

from collections.abc import Iterator

from mmengine.runner import Runner
from torch import nn

from convnext_dense.utils.distributed import bare

# The names in a model of heads that classify.
HEADS = ("bbox_head", "mask_head", "decode_head", "auxiliary_head")


def problem(runner: Runner) -> str | None:
    """The first reason why a run that is about to train cannot learn.

    The reasons are: the learning rate is 0 everywhere; the backbone is frozen and has
    random weights, or is frozen although the config does not freeze it; a head has
    another number of classes than the data.
    """
    model = bare(runner.model)
    groups = runner.optim_wrapper.optimizer.param_groups
    backbone = getattr(model, "backbone", None)
    return (
        _rates(groups)
        or (backbone and _frozen(backbone, groups, runner))
        or _classes(model, runner.train_dataloader.dataset)
    )


def _rates(groups: list[dict]) -> str | None:
    """Checks that some learning rate is not 0."""
    if any(group.get("initial_lr", group["lr"]) for group in groups):
        return None
    return (
        "the learning rate is 0 everywhere: the model would not learn. Set "
        "optim_wrapper.optimizer.lr"
    )


def _frozen(backbone: nn.Module, groups: list[dict], runner: Runner) -> str | None:
    """Checks that a backbone that does not learn has weights, and is meant not to."""
    sizes = {id(p): p.numel() for p in backbone.parameters()}
    learning = sum(
        sizes.get(id(parameter), 0)
        for group in groups
        if group.get("initial_lr", group["lr"])
        for parameter in group["params"]
        if parameter.requires_grad
    )
    # The norms of a frozen backbone's feature maps learn, few as they are.
    if learning >= sum(sizes.values()) / 100:
        return None
    config = runner.cfg.model.backbone
    intended = config.get("frozen_stages", 0) > 0 or any(
        "backbone" in key
        for key in (runner.cfg.optim_wrapper.get("paramwise_cfg") or {}).get(
            "custom_keys", ()
        )
    )
    if not intended:
        return (
            "no parameter of the backbone would learn: each is frozen or has a "
            "learning rate of 0, but the config freezes none (frozen_stages, "
            "paramwise_cfg.custom_keys)"
        )
    if not (config.get("init_cfg") or runner._load_from or runner._resume):
        return (
            "the backbone is frozen and has random weights: name pre-trained weights "
            "as model.backbone.init_cfg or load_from, or let it learn "
            "(model.backbone.frozen_stages=0)"
        )
    runner.logger.info("the backbone is frozen, as the config says; the heads learn")
    return None


def _classes(model: nn.Module, dataset: object) -> str | None:
    """Checks that the heads have as many classes as the training data."""
    classes = getattr(dataset, "metainfo", {}).get("classes")
    if isinstance(classes, str):
        return (
            f"the data set's metainfo.classes is the string {classes!r}; for one "
            f"class, write ({classes!r},)"
        )
    for name, count in _class_counts(model):
        if classes is not None and count != len(classes):
            return (
                f"{name} has {count} classes and the training data "
                f"{len(classes)} ({', '.join(map(str, classes[:5]))}"
                f"{', ...' if len(classes) > 5 else ''}): set "
                f"num_classes={len(classes)} of each head, or metainfo.classes of "
                "each data set"
            )
    return None


def _class_counts(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Name and number of classes of each head that classifies."""
    for name, module in model.named_modules():
        # bbox_head.0, ... are the heads of a cascade.
        head = next((p for p in reversed(name.split(".")) if not p.isdigit()), "")
        count = getattr(module, "num_classes", None)
        if head in HEADS and isinstance(count, int):
            yield name, count


def without_gradient(model: nn.Module) -> str | None:
    """Checks that the first backward pass has reached the backbone."""
    reached: dict[bool, list[str]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            reached[parameter.grad is not None].append(name)
    if not reached[False]:
        return None
    backbone = [n for n in reached[True] + reached[False] if n.startswith("backbone.")]
    if backbone and not any(name in reached[True] for name in backbone):
        return (
            "the backbone is not used: the losses do not depend on any of its "
            f"{len(backbone)} parameters"
        )
    return None
