"""Let the user choose the device of a run.

mmengine has no such setting: it takes a GPU wherever there is one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.device import utils

from convnext_dense.errors import InputError


@contextmanager
def chosen_device(name: str | None = None) -> Iterator[None]:
    """Set what mmengine's ``get_device`` returns in this context.

    Args:
        name: cpu, cuda or mps; None leaves the choice to mmengine.

    Raises:
        InputError: PyTorch finds no such device here.
    """
    available = {
        None: True,
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available[name]:
        raise InputError(
            f"--device {name}: PyTorch {torch.__version__} finds no such device here. "
            "Leave --device out, or name another one; `convnext-dense doctor` says "
            "which devices there are"
        )
    before = utils.DEVICE
    utils.DEVICE = name or before
    try:
        yield
    finally:
        utils.DEVICE = before
