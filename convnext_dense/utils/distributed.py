"""Helpers for runs of many processes."""

from collections.abc import Callable
from typing import Any, TypeVar

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.model import is_model_wrapper
from torch import nn

from convnext_dense.errors import InputError

T = TypeVar("T")


def on_main(work: Callable[[], T]) -> T:
    """Call ``work`` on rank 0 only, and return its result on every rank.

    Raises:
        InputError: ``work`` raised it; every rank raises it.

    >>> on_main(lambda: 1 + 1)
    2
    """
    outcome: list[Any] = [None]
    if is_main_process():
        try:
            outcome = [work()]
        except InputError as error:
            outcome = [error]
    broadcast_object_list(outcome)
    if isinstance(outcome[0], InputError):
        raise outcome[0]
    return outcome[0]


def bare(model: nn.Module) -> nn.Module:
    """The model inside the wrapper of DDP or FSDP; ``model`` itself without a wrapper.

    >>> bare(nn.Identity())
    Identity()
    """
    if not is_model_wrapper(model):
        return model
    inner = model.module
    assert isinstance(inner, nn.Module)
    return inner
