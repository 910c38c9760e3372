"""One training step of each task, by the way that tools/train.py takes."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .result import OK, TROUBLE, WARNING, Finding

CONFIGS = Path(__file__).resolve().parents[3] / "configs"  # the doctor is of a clone
WITHOUT_AMP = "train without --amp"


def detection() -> Iterator[Finding]:
    yield from _train("detection", "det/cascade_mask_rcnn_convnext_atto_shapes.py")


def segmentation() -> Iterator[Finding]:
    yield from _train("segmentation", "seg/upernet_convnext_atto_shapes.py")


def _train(task: str, file: str) -> Iterator[Finding]:
    from mmengine.device import get_device

    from convnext_dense.commands import load_package

    load_package()
    from convnext_dense.datasets import shapes

    # Below the folder of the process that started this one, which removes it.
    folder = Path(tempfile.mkdtemp())
    shapes.draw(folder / "shapes", seed=0, counts={"train": 2})
    yield _step(task, file, folder, amp=False)
    if get_device() == "cuda":
        try:
            yield _step(task, file, folder, amp=True)
        except Exception as error:
            yield Finding(
                WARNING,
                task,
                f"a step in mixed precision: {type(error).__name__}: {error}",
                WITHOUT_AMP,
            )


def _step(task: str, file: str, folder: Path, amp: bool) -> Finding:
    import torch
    from mmengine.device import get_device

    from convnext_dense.config import options
    from convnext_dense.engine.runner import build_runner

    name = "mixed precision" if amp else "fp32"
    cfg = options.load_config(
        str(CONFIGS / file), [f"data_root={folder / 'shapes'}"], str(folder / name)
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
    weights = all(bool(torch.isfinite(p).all()) for p in runner.model.parameters())
    found = f"trained a step in {name} on {get_device()}: loss {loss:.3f}"
    found += f", {seconds:.1f} s with its checkpoint"
    if math.isfinite(loss) and weights:
        return Finding(OK, task, found)
    found += f"; {'the loss' if weights else 'a weight'} is not a number"
    if amp:
        return Finding(WARNING, task, found, WITHOUT_AMP)
    return Finding(
        TROUBLE,
        task,
        found,
        "this torch computes wrongly here: install another version of torch and "
        "torchvision;\non a GPU, see whether CUDA_VISIBLE_DEVICES= before the command "
        "helps: then it is the GPU or its driver",
    )
