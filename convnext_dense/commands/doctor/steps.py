"""Check that one training step of each task works, as convnext-dense train runs it."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from . import remedies
from .finding import ERROR, OK, WARNING, Finding

WITHOUT_AMP = "train without --amp"


def detection() -> Iterator[Finding]:
    """Train a Cascade Mask R-CNN for a step."""
    yield from _train("detection", "cascade_mask_rcnn_convnext_atto_shapes")


def segmentation() -> Iterator[Finding]:
    """Train an UPerNet for a step."""
    yield from _train("segmentation", "upernet_convnext_atto_shapes")


def _train(task: str, config: str) -> Iterator[Finding]:
    """Train ``config`` for a step in fp32 and, on a GPU, mixed precision."""
    from mmengine.device import get_device

    from convnext_dense.commands import load_package

    load_package()
    from convnext_dense.datasets import shapes

    # TMPDIR is a folder that the doctor's main process removes.
    folder = Path(tempfile.mkdtemp())
    shapes.draw(folder / "shapes", seed=0, counts={"train": 2})
    yield _step(task, config, folder, amp=False)
    if get_device() == "cuda":
        try:
            yield _step(task, config, folder, amp=True)
        except Exception as error:
            message = f"a step in mixed precision fails: {remedies.describe(error)}"
            yield Finding(WARNING, task, message, WITHOUT_AMP)


def _step(task: str, config: str, folder: Path, amp: bool) -> Finding:
    """Train one step and check that the loss and the weights are finite."""
    import torch
    from mmengine.device import get_device

    from convnext_dense.config import options
    from convnext_dense.engine.runner import build_runner

    precision = "mixed precision" if amp else "fp32"
    cfg = options.load_config(
        config, [f"data_root={folder / 'shapes'}"], str(folder / precision)
    )
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.update({"max_epochs" if task == "detection" else "max_iters": 1})
    if amp:
        options.use_amp(cfg)
    runner = build_runner(cfg, "train")
    start = time.monotonic()
    runner.train()
    seconds = time.monotonic() - start
    loss = runner.message_hub.get_scalar("train/loss").current()
    finite_weights = all(
        bool(torch.isfinite(parameter).all()) for parameter in runner.model.parameters()
    )
    message = (
        f"trained a step in {precision} on {get_device()}: loss {loss:.3f}, "
        f"{seconds:.1f} s with writing its checkpoint"
    )
    if math.isfinite(loss) and finite_weights:
        return Finding(OK, task, message)
    message += (
        f"; {'the loss' if finite_weights else 'a weight'} is not a finite number"
    )
    if amp:
        return Finding(WARNING, task, message, WITHOUT_AMP)
    return Finding(
        ERROR,
        task,
        message,
        "torch computes wrong results on this machine: install another version of "
        "torch and torchvision;\non a machine with a GPU, put CUDA_VISIBLE_DEVICES= "
        "before the command: if that helps, the GPU or its driver is broken",
    )
