"""Finds batch norms that get a single value per channel, in a run's first step.

Heads such as PSP, UPerNet, ASPP and EncNet normalize pixels that are pooled over the
whole image: (N, C, 1, 1). In training, a batch norm needs at least two values per
channel, so a batch of one image fails: the first one, or hours later the last batch of
an epoch.
"""

import functools
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from convnext_dense.errors import InputError
from convnext_dense.utils.distributed import bare


class PooledNorms:
    """Looks at the inputs of all batch norms until the first step is made.

    Args:
        runner: about to train.
    """

    def __init__(self, runner: Runner) -> None:
        self._loader = runner.train_dataloader
        self._cfg = runner.cfg
        self._handles: list[RemovableHandle] = []
        if last_batch(self._loader) > 1 or runner.cfg.get("compile"):
            return  # hooks would be compiled, too
        for name, module in bare(runner.model).named_modules():
            if isinstance(module, _BatchNorm) and not _is_joint(module):
                check = functools.partial(self._check, name)
                self._handles.append(module.register_forward_pre_hook(check))

    def stop(self) -> None:
        """Look no longer."""
        while self._handles:
            self._handles.pop().remove()

    def _check(self, name: str, norm: nn.Module, inputs: tuple) -> None:
        """Raise an InputError if a norm will get a single value per channel.

        Args:
            name: of ``norm`` in the model.
            inputs: a tensor (N, C, ...).
        """
        if not (norm.training and inputs and inputs[0][:1, :1].numel() == 1):
            return
        # The number of regions of interest, and of their features, is not the batch's.
        if len(inputs[0]) in (1, _batch_size(self._loader)):
            self.stop()
            raise InputError(self._message(name))

    def _message(self, name: str) -> str:
        size = _batch_size(self._loader)
        if size == 1:
            cause = "a batch has one image"
            option = "train_dataloader.batch_size=2"
        else:
            images = len(self._loader.batch_sampler.sampler)
            cause = (
                f"the last batch of an epoch has one image (images: {images}, a "
                f"batch: {size})"
            )
            grouped = type(self._loader.batch_sampler).__name__ != "BatchSampler"
            section = "batch_sampler." if grouped else ""
            option = f"train_dataloader.{section}drop_last=True"
        setting = _norm_setting(self._cfg, name)
        return (
            f"{cause}, and the batch norm {name} needs two: it normalizes pixels that "
            f"are pooled over the whole image. Set --cfg-options {option}"
            + (
                f", or group norm: {setting}.type=GN {setting}.num_groups=8"
                if setting
                else ""
            )
        )


def _norm_setting(cfg: Config, name: str) -> str | None:
    """The setting of the type of a norm: the innermost ``norm_cfg`` around it.

    Args:
        name: of the norm in the model, for example decode_head.bottleneck.bn.
    """
    setting, path, node = None, "model", cfg.model
    for key in name.split("."):
        if isinstance(node, list | tuple) and key.isdecimal() and int(key) < len(node):
            node = node[int(key)]
        elif isinstance(node, dict) and key in node:
            node = node[key]
        else:
            break
        path = f"{path}.{key}"
        if isinstance(node, dict) and isinstance(node.get("norm_cfg"), dict):
            setting = f"{path}.norm_cfg"
    return setting


def _is_joint(norm: nn.Module) -> bool:
    """Whether a norm computes its statistics over several processes."""
    return isinstance(norm, nn.SyncBatchNorm) and get_world_size() > 1


def _batch_size(loader: Any) -> int:
    """The number of images in the batches of one process; 2 if it is not known."""
    size = getattr(loader, "batch_size", None)
    size = size or getattr(loader.batch_sampler, "batch_size", None)
    return size if isinstance(size, int) else 2


def last_batch(loader: Any) -> int:
    """The number of images in the last batch of an epoch, in one process.

    It is that of the other batches if a sampler has no end, is not known, or drops
    what is left.
    """
    size = _batch_size(loader)
    batches = loader.batch_sampler  # the loader's own sampler may be another
    known = type(batches).__name__ in ("BatchSampler", "AspectRatioBatchSampler")
    if not known or getattr(batches, "drop_last", False):
        return size
    if type(batches.sampler).__name__ != "DefaultSampler":  # others may have no end
        return size
    return len(batches.sampler) % size or size
