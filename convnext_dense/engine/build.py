"""Builds the model of a config alone, without a Runner."""

from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from convnext_dense.config import checks
from convnext_dense.errors import InputError
from convnext_dense.optim.layer_decay import LayerDecayOptimWrapperConstructor
from convnext_dense.utils.text import reason

from .machine import fit_to_machine


def build_model(
    cfg: Config, device: str = "meta", as_in_training: bool = False
) -> nn.Module:
    """Check a config and build its model, with random weights.

    Args:
        cfg: as ``load_config`` returns it.
        device: where the weights are; on the meta device they take no memory.
        as_in_training: change ``cfg`` first as a run on this machine does
            (``fit_to_machine``).

    Raises:
        InputError: the config is of neither toolbox, or its model cannot be built.

    Example::

        cfg = load_config("configs/seg/upernet_convnext_atto_shapes.py")
        build_model(cfg).backbone.feature_info[0].channels  # 40
    """
    checks.check(cfg, ())
    if as_in_training:
        fit_to_machine(cfg)
    scope = DefaultScope.overwrite_default_scope(cfg.default_scope)
    try:
        with scope, torch.device(device):
            return MODELS.build(cfg.model)
    except InputError:
        raise
    except Exception as error:  # a toolbox's model can raise anything
        raise InputError(
            f"the model of {cfg.filename} could not be built: {reason(error)}"
        ) from error


def build_layer_decay(cfg: Config) -> list[dict[str, Any]]:
    """Check a config and build the parameter groups with which training starts.

    The parameters are on the meta device.

    Returns:
        As ``layer_decay_groups``.

    Raises:
        InputError: the model cannot be built, or ``cfg`` has no layer decay.
    """
    _require_layer_decay(cfg)
    return layer_decay_groups(cfg, build_model(cfg, as_in_training=True))


def layer_decay_groups(cfg: Config, model: nn.Module) -> list[dict[str, Any]]:
    """The optimizer's parameter groups for a model of ``cfg``.

    Args:
        cfg: fitted to the machine.

    Returns:
        The ``param_groups`` of ``LayerDecayOptimWrapperConstructor``: each has
        ``param_names``, ``layer``, ``lr`` and ``weight_decay``.

    Raises:
        InputError: ``cfg`` has no layer decay.
    """
    _require_layer_decay(cfg)
    return build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups


def _require_layer_decay(cfg: Config) -> None:
    """Raise an InputError if ``cfg`` has no layer decay."""
    constructor = cfg.get("optim_wrapper", {}).get("constructor")
    if constructor != LayerDecayOptimWrapperConstructor.__name__:
        raise InputError(
            f"{cfg.filename} has no layer decay: all parameters have the same "
            "learning rate. To use layer decay, set optim_wrapper.constructor="
            "'LayerDecayOptimWrapperConstructor' and .paramwise_cfg.decay_rate"
        )
