"""Checks before the first step that training can learn anything.

Each function returns a message that says what is wrong and what to do, or None.
"""

from mmengine.runner import Runner
from torch import nn

from convnext_dense.utils.distributed import bare

from . import classes


def problem(runner: Runner) -> str | None:
    """The first reason why a run that is about to train cannot learn.

    The reasons are: the learning rate is 0 everywhere; the backbone is frozen and has
    random weights, or is frozen although the config does not freeze it; a head or a
    loss is for other classes than the data's.
    """
    model = bare(runner.model)
    groups = runner.optim_wrapper.optimizer.param_groups
    backbone = getattr(model, "backbone", None)
    return (
        _rates(groups)
        or (backbone and _frozen(backbone, groups, runner))
        or classes.problem(model, runner.train_dataloader.dataset)
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
