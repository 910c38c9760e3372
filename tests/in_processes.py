"""Run tools one after another in one process of several, which imports once:
``python -m tests.in_processes '[["train", CONFIG, ...], ["test", ...]]'``.
Only a training whose work dir is called page ends with its page.

Configs of the tests import it for what they observe with: ``Gradients`` keeps the
first step's, ``ResizeByNumber`` makes images of several sizes.
"""

import json
import runpy
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, TRANSFORMS
from mmengine.utils import ManagerMixin

from convnext_dense import processes
from convnext_dense.run_report.hook import RunReportHook

from .conftest import ROOT, forget_instances


@HOOKS.register_module(force=True)
class Gradients(Hook):
    """Writes the gradients of the first step, and the images it was of.

    Args:
        file: of rank 0; that of another rank has its number at the end.
    """

    def __init__(self, file: str):
        self.file = file + f".{get_rank()}" * (get_rank() > 0)

    def before_train(self, runner) -> None:
        optimizer = runner.optim_wrapper.optimizer
        step = optimizer.step

        def keep_and_step(*args, **kwargs):
            model = getattr(runner.model, "module", runner.model)
            torch.save({n: p.grad for n, p in model.named_parameters()}, self.file)
            optimizer.step = step
            return step(*args, **kwargs)

        optimizer.step = keep_and_step

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if batch_idx:
            return
        images = [sample.img_path for sample in data_batch["data_samples"]]
        torch.save(images, f"{self.file}.images")


@TRANSFORMS.register_module(force=True)
class ResizeByNumber:
    """Resizes an image to the one of ``scales`` that its file's number chooses."""

    def __init__(self, scales):
        self.steps = [
            TRANSFORMS.build(dict(type="Resize", scale=scale)) for scale in scales
        ]

    def __call__(self, results):
        number = int(Path(results["img_path"]).stem)
        return self.steps[number % len(self.steps)](results)


def main() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    write = RunReportHook.after_train
    with processes.joined(Config(dict(launcher="pytorch"))):
        for name, *arguments in json.loads(sys.argv[1]):
            sys.argv[1:] = [*arguments, "--launcher", "pytorch"]
            forget_instances(ManagerMixin)
            wanted = "page" in arguments
            RunReportHook.after_train = write if wanted else lambda *_: None
            runpy.run_path(str(ROOT / "tools" / f"{name}.py"), run_name="__main__")
            print(f"{name} is over", flush=True)


if __name__ == "__main__":
    main()
