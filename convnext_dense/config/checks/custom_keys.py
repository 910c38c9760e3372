"""Reports keys of ``paramwise_cfg.custom_keys`` that apply to no parameter."""

import logging

from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from convnext_dense.optim.custom_keys import unknown_keys


def check_custom_keys(cfg: Config, model: nn.Module) -> None:
    """Log a warning for each custom key that no parameter's name contains.

    mmengine trains the parameters that a misspelt key means with the usual rates, and
    says nothing. The toolboxes' own configs have such keys, so it is no error. Layer
    decay refuses them.

    Args:
        model: of the run.
    """
    options = cfg.get("optim_wrapper", {}).get("paramwise_cfg") or {}
    names = (name for name, _ in model.named_parameters())
    for key in unknown_keys(options.get("custom_keys") or {}, names):
        print_log(
            "optim_wrapper.paramwise_cfg.custom_keys: no parameter's name contains "
            f"{key}, so this key changes nothing",
            "current",
            logging.WARNING,
        )
