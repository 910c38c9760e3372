"""Before the first step: what would train for days, and for nothing.

Each function returns what is wrong in one sentence, with what to do; None if nothing
is.
"""

from collections.abc import Iterator

from mmengine.runner import Runner
from torch import nn

from convnext_dense.utils.distributed import bare

HEADS = ("bbox_head", "mask_head", "decode_head", "auxiliary_head")


def trouble(runner: Runner) -> str | None:
    """The first thing that is wrong with a run about to train."""
    model = bare(runner.model)
    groups = runner.optim_wrapper.optimizer.param_groups
    backbone = getattr(model, "backbone", None)
    return (
        _rates(groups)
        or (backbone and _frozen(backbone, groups, runner))
        or _classes(model, runner.train_dataloader.dataset)
    )


def _rates(groups) -> str | None:
    if any(group.get("initial_lr", group["lr"]) for group in groups):
        return None
    return (
        "the learning rate is 0 everywhere: nothing would be learnt; set "
        "optim_wrapper.optimizer.lr"
    )


def _frozen(backbone: nn.Module, groups, runner: Runner) -> str | None:
    sizes = {id(p): p.numel() for p in backbone.parameters()}
    learning = sum(
        sizes.get(id(parameter), 0)
        for group in groups
        if group.get("initial_lr", group["lr"])
        for parameter in group["params"]
        if parameter.requires_grad
    )
    # The norms of a frozen backbone's maps learn.
    if learning >= sum(sizes.values()) / 100:
        return None
    config = runner.cfg.model.backbone
    asked = config.get("frozen_stages", 0) > 0 or any(
        "backbone" in key
        for key in (runner.cfg.optim_wrapper.get("paramwise_cfg") or {}).get(
            "custom_keys", ()
        )
    )
    if not asked:
        return (
            "no parameter of the backbone would learn: each is frozen or without a "
            "learning rate, and the config asks for neither (frozen_stages, "
            "paramwise_cfg.custom_keys)"
        )
    if not (config.get("init_cfg") or runner._load_from or runner._resume):
        return (
            "the backbone is frozen and random: name pre-trained weights as "
            "model.backbone.init_cfg or load_from, or let it learn "
            "(model.backbone.frozen_stages=0)"
        )
    runner.logger.info("the backbone is frozen, as the config says; the heads learn")
    return None


def _classes(model: nn.Module, dataset) -> str | None:
    classes = getattr(dataset, "metainfo", {}).get("classes")
    if isinstance(classes, str):
        return (
            f"the data set's metainfo.classes is the string {classes!r}; with one "
            f"class: ({classes!r},)"
        )
    for name, count in _counts(model):
        if classes is not None and count != len(classes):
            return (
                f"{name} has {count} classes and the training data "
                f"{len(classes)} ({', '.join(map(str, classes[:5]))}"
                f"{', ...' if len(classes) > 5 else ''}): set "
                f"num_classes={len(classes)} of each head, or metainfo.classes of "
                "each data set"
            )
    return None


def _counts(model: nn.Module) -> Iterator[tuple[str, int]]:
    """The heads that tell classes, by their names in the model."""
    for name, module in model.named_modules():
        kind = next((p for p in reversed(name.split(".")) if not p.isdigit()), "")
        count = getattr(module, "num_classes", None)
        if kind in HEADS and isinstance(count, int):
            yield name, count


def without_gradient(model: nn.Module) -> str | None:
    """What the first backward pass has not reached; None if all of it was."""
    reached = {True: [], False: []}
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
