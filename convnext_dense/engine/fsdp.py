"""Sharded training: mmengine's FSDP, with a whole model's groups and checkpoints.

Each process keeps a shard of every parameter, of its gradient and of the optimizer's
state. ``configs/_base_/fsdp.py`` turns it on.
"""

import copy
import warnings
from collections.abc import Callable
from typing import cast

import torch
from mmengine._strategy import FSDPStrategy
from mmengine.optim import BaseOptimWrapper, build_optim_wrapper
from mmengine.registry import FUNCTIONS, MODELS, STRATEGIES
from mmengine.runner import load_state_dict
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

from convnext_dense.checkpoints.whole_models import match
from convnext_dense.models.block import Block

_WRAPPED = "_fsdp_wrapped_module."  # FSDP adds this to the names of parameters


@FUNCTIONS.register_module()
def each_block(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """FSDP's ``auto_wrap_policy``: gather each ConvNeXt block by itself.

    Args:
        recurse: torch asks whether to look at the children of ``module``; if False,
            whether to wrap ``module``.
        nonwrapped_numel: number of parameters of ``module`` without a wrapper.
    """
    return recurse or isinstance(module, Block)


@STRATEGIES.register_module()
class ConvNeXtFSDPStrategy(FSDPStrategy):
    """mmengine's FSDPStrategy, for models with this package's ConvNeXt.

    A second model on the meta device, ``unsharded``, has the shapes of the whole model
    and takes no memory. It decides the optimizer's groups: a shard of a parameter has
    one dimension, and would get no weight decay. It also decides how a checkpoint's
    names match the model. The optimizer's state is saved as one process saves it, so
    that a run can continue with FSDP or without.

    The arguments are mmengine's. ``state_dict_cfg`` has to be ``'full'``.
    """

    def build_model(self, model: dict) -> nn.Module:
        """Build the model of a config, and ``unsharded``."""
        with torch.device("meta"):
            self.unsharded = MODELS.build(copy.deepcopy(model))
        return super().build_model(model)

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        model = super()._wrap_model(model)
        model.__dict__["unsharded"] = self.unsharded  # not registered as a submodule
        return model

    def build_optim_wrapper(
        self, optim_wrapper: dict, model: nn.Module
    ) -> BaseOptimWrapper:
        """Group the parameters of ``unsharded``; optimize the shards of ``model``."""
        shards = {n.replace(_WRAPPED, ""): p for n, p in model.named_parameters()}
        names = {}
        for name, parameter in self.unsharded.named_parameters():
            parameter.requires_grad = shards[name].requires_grad
            names[parameter] = name
        if optim_wrapper.get("type") == "AmpOptimWrapper":
            optim_wrapper = {**optim_wrapper, "use_fsdp": True}
        built = build_optim_wrapper(self.unsharded, optim_wrapper)
        # The parameters' names in the order of their numbers in the optimizer's state.
        self._names: list[str] = []
        for group in built.optimizer.param_groups:
            group_names = [names[parameter] for parameter in group["params"]]
            group["params"] = [shards[name] for name in group_names]
            self._names += group_names
        if getattr(built, "clip_func", None) is nn.utils.clip_grad_norm_:
            # By the norm of the whole gradient, not of this process's shards.
            sharded = cast(FSDP, model)
            built.clip_func = lambda _, *args, **kwargs: sharded.clip_grad_norm_(
                *args, **kwargs
            )
        return built

    def model_state_dict(self) -> dict:
        """The whole model's weights by name."""
        state_dict = super().model_state_dict()
        for name, tensor in state_dict.items():
            # Without FSDP's tensor attributes, which not every reader knows.
            state_dict[name] = tensor.detach()
        return state_dict

    def load_checkpoint(
        self, filename: str, *, callback: Callable[[dict], None], **kwargs
    ) -> dict:
        """Load a checkpoint; as with a Runner, weights alone are one, too."""

        def with_container(checkpoint: dict) -> None:
            if "state_dict" not in checkpoint:
                weights = copy.copy(checkpoint)
                checkpoint.clear()
                checkpoint["state_dict"] = weights
            callback(checkpoint)

        return super().load_checkpoint(filename, callback=with_container, **kwargs)

    def load_model_state_dict(self, state_dict: dict, **_) -> None:
        """Load a whole model's weights, of any origin, into the shards."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "for .*: copying from a non-meta")
            load_state_dict(self.unsharded, state_dict)  # logs which weights are unused
        expected = self.unsharded.state_dict()
        fitting = {
            name: weight
            for name, weight in match(self.unsharded, state_dict).weights.items()
            if name in expected and weight.shape == expected[name].shape
        }
        self.model.load_state_dict(fitting, strict=False)

    def optim_state_dict(self) -> dict:
        """The optimizer's state as one process has it; empty on ranks other than 0."""
        optimizer = self.optim_wrapper.optimizer
        sharded = optimizer.state_dict()
        whole: dict[int, dict] = {}
        numbers = {name: number for number, name in enumerate(self._names)}
        # One entry (exp_avg, step, ...) at a time: torch gathers them all in the same
        # buffer, where on a CPU each would overwrite the one before.
        keys = {key for state in sharded["state"].values() for key in state}
        for key in sorted(keys):
            state = {n: {key: s[key]} for n, s in sharded["state"].items() if key in s}
            gathered = FSDP.optim_state_dict(
                self.model, optimizer, {**sharded, "state": state}
            )
            for name, entry in gathered.get("state", {}).items():
                whole.setdefault(numbers[name], {}).update(entry)
        # The groups number the parameters in the whole model's order already.
        return {**self.optim_wrapper.state_dict(), "state": whole} if whole else {}

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load the optimizer's state of one process into the shards."""
        groups = [
            {**group, "params": [self._names[number] for number in group["params"]]}
            for group in state_dict["param_groups"]
        ]
        state = {self._names[number]: s for number, s in state_dict["state"].items()}
        shards = FSDP.optim_state_dict_to_load(
            model=self.model,
            optim=self.optim_wrapper.optimizer,
            optim_state_dict=dict(state=state, param_groups=groups),
        )
        self.optim_wrapper.load_state_dict({**state_dict, **shards})
