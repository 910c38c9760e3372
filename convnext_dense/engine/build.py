"""Build the model of a config alone, without a Runner."""

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


def build_model(cfg: Config, device: str = "meta") -> nn.Module:
    """The model of ``cfg``, whose weights are random.

    Args:
        device: where it is; on the meta device it has a structure, and no memory.

    Raises:
        InputError: the config is of neither toolbox, or its model cannot be built.
    """
    checks.check(cfg, ())
    scope = DefaultScope.overwrite_default_scope(cfg.default_scope)
    try:
        with scope, torch.device(device):
            return MODELS.build(cfg.model)
    except InputError:
        raise
    except Exception as error:  # whatever a toolbox's model can raise
        raise InputError(
            f"the model of {cfg.filename} could not be built: {reason(error)}"
        ) from error


def build_layer_decay(cfg: Config) -> list[dict]:
    """The ``param_groups`` with which training by ``cfg`` starts, on the meta device.

    Raises:
        InputError: the model cannot be built, or ``cfg`` has no layer decay.
    """
    constructor = cfg.get("optim_wrapper", {}).get("constructor")
    if constructor != LayerDecayOptimWrapperConstructor.__name__:
        raise InputError(
            f"{cfg.filename} has no layer decay: every parameter learns at the "
            "optimizer's own rate; to have it, set optim_wrapper.constructor="
            "'LayerDecayOptimWrapperConstructor' and .paramwise_cfg.decay_rate"
        )
    fit_to_machine(cfg)
    wrapper = build_optim_wrapper(build_model(cfg), cfg.optim_wrapper)
    return wrapper.optimizer.param_groups
