"""Training in parts: mmengine's FSDP, with the groups and checkpoints of a whole model.

Each process keeps a part of every parameter, of its gradient and of the optimizer's
state. ``configs/_base_/fsdp.py`` turns it on.
"""

import copy
import warnings
from collections.abc import Callable

import torch
from mmengine._strategy import FSDPStrategy
from mmengine.optim import BaseOptimWrapper, build_optim_wrapper
from mmengine.registry import FUNCTIONS, MODELS, STRATEGIES
from mmengine.runner import load_state_dict
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

from convnext_dense.checkpoints.whole_models import match
from convnext_dense.models.block import Block

_WRAPPED = "_fsdp_wrapped_module."  # in the names of wrapped modules' parameters


@FUNCTIONS.register_module()
def each_block(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """FSDP's ``auto_wrap_policy``: each ConvNeXt block is gathered by itself."""
    return recurse or isinstance(module, Block)


@STRATEGIES.register_module()
class ConvNeXtFSDPStrategy(FSDPStrategy):
    """mmengine's FSDPStrategy, for models with this package's ConvNeXt.

    A twin of the model on the meta device, with its shapes and no memory, stands for
    the whole: by it parameters are grouped (a part of one is one-dimensional, and
    would have no weight decay) and checkpoints recognised. The optimizer's state is
    saved as one process saves it, so that a run goes on with FSDP or without.

    Arguments are mmengine's. ``state_dict_cfg`` has to be ``'full'``.
    """

    def build_model(self, model: dict) -> nn.Module:
        with torch.device("meta"):
            self.unsharded = MODELS.build(copy.deepcopy(model))
        return super().build_model(model)

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        model = super()._wrap_model(model)
        model.__dict__["unsharded"] = self.unsharded  # as an attribute, not a part
        return model

    def build_optim_wrapper(
        self, optim_wrapper: dict, model: nn.Module
    ) -> BaseOptimWrapper:
        parts = {n.replace(_WRAPPED, ""): p for n, p in model.named_parameters()}
        names = {}
        for name, parameter in self.unsharded.named_parameters():
            parameter.requires_grad = parts[name].requires_grad
            names[parameter] = name
        if optim_wrapper.get("type") == "AmpOptimWrapper":
            optim_wrapper = {**optim_wrapper, "use_fsdp": True}
        built = build_optim_wrapper(self.unsharded, optim_wrapper)
        self._names = []  # by the numbers that the optimizer's state has
        for group in built.optimizer.param_groups:
            own = [names[parameter] for parameter in group["params"]]
            group["params"] = [parts[name] for name in own]
            self._names += own
        if getattr(built, "clip_func", None) is nn.utils.clip_grad_norm_:
            # By the norm of the whole gradient, not of this process's part.
            built.clip_func = lambda _, *args, **kwargs: model.clip_grad_norm_(
                *args, **kwargs
            )
        return built

    def model_state_dict(self) -> dict:
        state_dict = super().model_state_dict()
        for name, tensor in state_dict.items():
            # Without the mark that FSDP leaves on it: not every reader knows it.
            state_dict[name] = tensor.detach()
        return state_dict

    def load_checkpoint(
        self, filename: str, *, callback: Callable[[dict], None], **kwargs
    ) -> dict:
        def with_container(checkpoint: dict) -> None:
            if "state_dict" not in checkpoint:  # weights alone, which a Runner takes
                weights = copy.copy(checkpoint)
                checkpoint.clear()
                checkpoint["state_dict"] = weights
            callback(checkpoint)

        return super().load_checkpoint(filename, callback=with_container, **kwargs)

    def load_model_state_dict(self, state_dict: dict, **_) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "for .*: copying from a non-meta")
            load_state_dict(self.unsharded, state_dict)  # which says what is not used
        own = self.unsharded.state_dict()
        fitting = {
            name: weight
            for name, weight in match(self.unsharded, state_dict).weights.items()
            if name in own and weight.shape == own[name].shape
        }
        self.model.load_state_dict(fitting, strict=False)

    def optim_state_dict(self) -> dict:
        """As one process has it; on other ranks than the first nothing."""
        optimizer = self.optim_wrapper.optimizer
        here, whole = optimizer.state_dict(), {}
        numbers = {name: number for number, name in enumerate(self._names)}
        # One kind of state at a time: torch gathers all of them in one room, where on a
        # CPU each would overwrite the one before.
        for kind in sorted(
            {kind for state in here["state"].values() for kind in state}
        ):
            state = {n: {kind: s[kind]} for n, s in here["state"].items() if kind in s}
            gathered = FSDP.optim_state_dict(
                self.model, optimizer, {**here, "state": state}
            )
            for name, part in gathered.get("state", {}).items():
                whole.setdefault(numbers[name], {}).update(part)
        # The groups have numbers as they are, being made by the whole model's order.
        return {**self.optim_wrapper.state_dict(), "state": whole} if whole else {}

    def load_optim_state_dict(self, state_dict: dict) -> None:
        groups = [
            {**group, "params": [self._names[number] for number in group["params"]]}
            for group in state_dict["param_groups"]
        ]
        state = {self._names[number]: s for number, s in state_dict["state"].items()}
        parts = FSDP.optim_state_dict_to_load(
            model=self.model,
            optim=self.optim_wrapper.optimizer,
            optim_state_dict=dict(state=state, param_groups=groups),
        )
        self.optim_wrapper.load_state_dict({**state_dict, **parts})
